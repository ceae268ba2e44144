"""Plays episodes in lock-step with policies that are opened once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from memrt.runtime.bundle import Bundle
from memrt.runtime.loop.lockstep import run_lockstep
from memrt.runtime.loop.protocols import HighLevel, LowLevel
from memrt.runtime.loop.settings import EPISODE_CAP_STEPS, LoopSettings
from memrt.runtime.policy.high_level import HighLevelPolicy
from memrt.runtime.policy.low_level import LowLevelPolicy
from memrt.runtime.ready_engines import ReadyEngines
from memrt.sim.env import TabletopEnv
from memrt.sim.oracle import OracleHighLevel
from memrt.sim.scripted import ScriptedPolicy


@dataclass(frozen=True, slots=True)
class EpisodeResult:
    """How one seed ended. Latencies are medians within the episode, in milliseconds; `seconds` is what it all took.

    `progress` is the share of the task's steps that were done (`Task.progress`).
    """

    seed: int
    difficulty: str
    repetitions: int
    success: bool
    status: str
    reason: str
    steps: int
    progress: float
    seconds: float
    high_level_ms: float
    low_level_ms: float
    actions_sha256: str


class EpisodePlayer:
    """A policy ready to play any task and seed. What a seed gives does not depend on what was played before it."""

    def __init__(self, bundle: Bundle, low_level: Callable[[str, int], LowLevel], high_level: HighLevel | None) -> None:
        """`low_level` gives that of a task and seed. The simulator's oracle is the high level where the policy says."""
        self._policy, self._low_level, self._high_level = bundle.policy, low_level, high_level

    @classmethod
    def of_engines(cls, bundle: Bundle, *, engines: ReadyEngines | None = None, threads: int = 1) -> EpisodePlayer:
        """Open a bundle's engines, by default those that lie ready for it on this computer."""
        engines = engines or ReadyEngines.of(bundle)
        has_vlm = bundle.policy.high_level.asks_vlm
        low_level = LowLevelPolicy(bundle, threads, engines=engines)
        high_level = HighLevelPolicy(bundle, threads, engines=engines) if has_vlm else None
        return cls(bundle, lambda task, seed: low_level, high_level)

    @classmethod
    def of_script(cls, scripted: ScriptedPolicy) -> EpisodePlayer:
        """A policy without weights."""
        return cls(scripted.bundle, scripted.open, None)

    def play(self, task: str, seed: int, cap_steps: int = EPISODE_CAP_STEPS) -> EpisodeResult:
        """One seeded episode, of at most `cap_steps` control steps."""
        began_s = time.perf_counter()
        policy = self._policy
        settings = replace(LoopSettings.from_policy(policy, seed=seed), cap_steps=cap_steps)
        with TabletopEnv(task, seed, control_hz=policy.low_level.control_hz) as env:
            high_level = self._high_level
            if policy.high_level.source == "oracle":
                high_level = OracleHighLevel(env, policy.memory.subgoal_style)
            record = run_lockstep(env, high_level, self._low_level(task, seed), env.goal, settings)
        latency = {stage: series.summary() for stage, series in record.latencies.items()}
        high, low = latency.get("high level"), latency.get("low level")
        return EpisodeResult(
            seed=seed,
            difficulty=env.task.difficulty,
            repetitions=env.task.repetitions,
            success=record.status == "success",
            status=record.status,
            reason=record.reason,
            steps=record.steps,
            progress=env.task.progress,
            seconds=time.perf_counter() - began_s,
            high_level_ms=high.p50_ms if high else 0.0,
            low_level_ms=low.p50_ms if low else 0.0,
            actions_sha256=record.actions_sha256,
        )
