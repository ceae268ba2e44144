"""Closed-loop evaluation in lock-step: success over seeds, with intervals, for one bundle or for two in a pair."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from memrt.runtime.bundle import load_bundle, require_halves
from memrt.runtime.device_engines import this_device
from memrt.runtime.loop.lockstep import run_lockstep
from memrt.runtime.loop.protocols import HighLevel
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.policy.high_level import HighLevelPolicy
from memrt.runtime.policy.low_level import LowLevelPolicy
from memrt.runtime.ready_engines import ReadyEngines
from memrt.runtime.statistics import median, paired_difference95, wilson95
from memrt.sim.env import TabletopEnv
from memrt.sim.oracle import OracleHighLevel

MAX_EPISODES = 100_000


@dataclass(frozen=True, slots=True)
class EpisodeResult:
    """How one seed ended. Latencies are medians within the episode, in milliseconds."""

    seed: int
    repetitions: int
    success: bool
    reason: str
    steps: int
    high_level_ms: float
    low_level_ms: float
    actions_sha256: str


def run_episode(bundle_path: Path, task: str, seed: int, threads: int = 1) -> EpisodeResult:
    """Run one seeded episode in lock-step with a bundle's engines."""
    return _run(_Policies(bundle_path, threads), task, seed)


def evaluate(
    bundle_path: Path,
    task: str,
    seeds: Sequence[int],
    *,
    workers: int = 1,
    on_episode: Callable[[EpisodeResult], None] | None = None,
) -> dict[str, Any]:
    """Evaluate a bundle on seeds; the result is plain JSON. Each seed's outcome is independent of `workers`."""
    results: list[EpisodeResult] = []
    for result in _episodes(bundle_path, task, seeds, workers):
        results.append(result)
        if on_episode is not None:
            on_episode(result)
    bundle = load_bundle(bundle_path, verify=False)
    device = this_device(bundle)
    successes = sum(result.success for result in results)
    by_repetitions = {
        n: [r.success for r in results if r.repetitions == n] for n in sorted({r.repetitions for r in results})
    }
    return {
        "robot": "sim",
        "mode": "lockstep",
        "task": task,
        "policy": bundle.policy.name,
        "precision": bundle.manifest.precision,
        "episodes": len(results),
        "success_rate": successes / len(results),
        "wilson95": list(wilson95(successes, len(results))),
        "by_repetitions": {
            str(n): {"episodes": len(s), "success_rate": sum(s) / len(s)} for n, s in by_repetitions.items()
        },
        "failures": dict(Counter(result.reason for result in results if not result.success)),
        "median_ms": {
            "high_level_call": median([result.high_level_ms for result in results]),
            "low_level_call": median([result.low_level_ms for result in results]),
        },
        "median_steps": median([float(result.steps) for result in results]),
        "seeds": [min(seeds), max(seeds)],
        "versions": {
            **{name: version(name) for name in ("memrt", "mujoco", "numpy")},
            device.backend: device.version,
        },
        "hardware": {
            "machine": platform.machine(),
            "processor": _processor(),
            "device": "cpu" if device.sm is None else device.name,
        },
        "results": [asdict(result) for result in results],
    }


def compare(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The paired difference in success of two evaluations on the same seeds, `first` minus `second`."""
    ours = {row["seed"]: bool(row["success"]) for row in first["results"]}
    theirs = {row["seed"]: bool(row["success"]) for row in second["results"]}
    shared = sorted(ours.keys() & theirs.keys())
    difference = paired_difference95([ours[s] for s in shared], [theirs[s] for s in shared])
    return {"episodes": len(shared), **asdict(difference)}


class _Policies:
    """Both policies of a bundle, opened once and used for many episodes."""

    def __init__(self, bundle_path: Path, threads: int) -> None:
        self.bundle = load_bundle(bundle_path)
        require_halves(self.bundle)
        engines = ReadyEngines.of(self.bundle)
        has_vlm = self.bundle.policy.high_level.asks_vlm
        self.low_level = LowLevelPolicy(self.bundle, threads, engines=engines)
        self.high_level = HighLevelPolicy(self.bundle, threads, engines=engines) if has_vlm else None


def _run(policies: _Policies, task: str, seed: int) -> EpisodeResult:
    policy = policies.bundle.policy
    with TabletopEnv(task, seed, control_hz=policy.low_level.control_hz) as env:
        high_level: HighLevel | None = policies.high_level
        if policy.high_level.source == "oracle":
            high_level = OracleHighLevel(env, policy.memory.subgoal_style)
        record = run_lockstep(
            env, high_level, policies.low_level, env.goal, LoopSettings.from_policy(policy, seed=seed)
        )
        latency = {stage: series.summary() for stage, series in record.latencies.items()}
        high, low = latency.get("high level"), latency.get("low level")
        return EpisodeResult(
            seed=seed,
            repetitions=env.task.repetitions,
            success=record.status == "success",
            reason=record.reason,
            steps=record.steps,
            high_level_ms=high.p50_ms if high else 0.0,
            low_level_ms=low.p50_ms if low else 0.0,
            actions_sha256=record.actions_sha256,
        )


def _episodes(bundle_path: Path, task: str, seeds: Sequence[int], workers: int) -> Iterator[EpisodeResult]:
    if workers <= 1:
        policies = _Policies(bundle_path, threads=1)
        for seed in seeds:
            yield _run(policies, task, seed)
        return
    shares = [list(seeds[worker::workers]) for worker in range(workers)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for share in pool.map(partial(_share, bundle_path, task), shares):
            yield from share


def _share(bundle_path: Path, task: str, seeds: Sequence[int]) -> list[EpisodeResult]:
    policies = _Policies(bundle_path, threads=1)
    return [_run(policies, task, seed) for seed in seeds]


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
