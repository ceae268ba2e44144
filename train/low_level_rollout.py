"""How often a low level succeeds when the simulator names the subgoals: for weights that are still in training.

    python -m memrt.train.low_level_rollout runs/reference/low_level --task BinFill --episodes 10

A checkpoint folder runs in PyTorch, as fp32, in lock-step; `memrt eval` measures exported policies.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memrt.runtime.config import load_policy
from memrt.runtime.loop.lockstep import run_lockstep
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.statistics import wilson95
from memrt.sim.env import TabletopEnv
from memrt.sim.oracle import OracleHighLevel
from memrt.sim.tasks import TASKS
from memrt.train.pi05.policy import TorchLowLevel

HELD_OUT_SEEDS_START = 1_000_000


def roll_out(weights: Path, task: str, seeds: Sequence[int], policy_name: str) -> dict[str, Any]:
    """Run the seeds of one task with an oracle policy's settings and these weights; the result is plain JSON."""
    policy = load_policy(policy_name)
    low_level = TorchLowLevel(weights, policy.low_level)
    reasons: list[tuple[bool, str]] = []
    for seed in seeds:
        with TabletopEnv(task, seed) as env:
            high_level = OracleHighLevel(env, policy.memory.subgoal_style)
            record = run_lockstep(env, high_level, low_level, env.goal, LoopSettings.from_policy(policy, seed=seed))
            reasons.append((record.status == "success", record.reason))
    successes = sum(success for success, _ in reasons)
    return {
        "task": task,
        "policy": policy_name,
        "episodes": len(reasons),
        "success_rate": successes / len(reasons),
        "wilson95": list(wilson95(successes, len(reasons))),
        "failures": dict(Counter(reason for success, reason in reasons if not success)),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of this module: one JSON object per task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--policy", choices=["oracle_simple", "oracle_grounded"], default="oracle_grounded")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--seed-start", type=int, default=HELD_OUT_SEEDS_START)
    chosen = parser.parse_args(arguments)
    seeds = range(chosen.seed_start, chosen.seed_start + chosen.episodes)
    for task in chosen.task:
        print(json.dumps(roll_out(chosen.weights, task, seeds, chosen.policy)), flush=True)


if __name__ == "__main__":
    main()
