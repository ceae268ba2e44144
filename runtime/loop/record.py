"""What a run leaves behind: outcome, counts, rates, latencies. Bounded, however long the run is."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.distribution import Distribution
from memrt.runtime.loop.stages import AMOUNTS, stage_durations
from memrt.runtime.types import ActionChunk, ActionSpace, Subgoal

SUBGOALS_KEPT = 512  # newest; an episode has about ten

SEAM_UNITS = {
    ActionSpace.JOINT_POSITION: "rad",
    ActionSpace.JOINT_VELOCITY: "rad/s",
    ActionSpace.CARTESIAN_POSE: "m",
}

Status = Literal["running", "success", "failure", "stopped", "held", "fault", "time_over"]
Judge = Literal["robot", "operator", "run"]


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Milliseconds over all calls, within the resolution of `Distribution`; the maximum is exact."""

    count: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


class LatencySeries:
    """The latencies of one stage [ns]."""

    def __init__(self) -> None:
        self.distribution = Distribution()
        self._last_ns = 0

    def record(self, duration_ns: int) -> None:
        """Take in one call."""
        self.distribution.add(duration_ns)
        self._last_ns = duration_ns

    @property
    def last_ms(self) -> float:
        """The newest call, 0 before the first."""
        return self._last_ns / NS_PER_MS

    def summary(self) -> LatencySummary | None:
        """None before the first call: a percentile of nothing is not a number."""
        found = self.distribution
        if not found.count:
            return None
        p50, p90, p99 = (found.percentile(percent) / NS_PER_MS for percent in (50, 90, 99))
        return LatencySummary(found.count, p50, p90, p99, found.max / NS_PER_MS)


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured during `duration_ns` of a run, keyed as in `RunRecord`; latencies in nanoseconds."""

    duration_ns: int
    latencies: Mapping[str, Distribution]
    amounts: Mapping[str, Distribution]
    counts: Counter[str]
    starved_ns: int


@dataclass(slots=True)
class RunRecord:
    """One run. `latencies` are keyed by stage ("high level", "high level: decode", "low level: step", ...).

    `amounts` are what calls counted, keyed alike ("high level: new tokens"), and "seam [µrad]": the jumps from chunk to
    chunk (in µrad/s and µm in other action spaces). `unmeasured_ns` of `duration_ns` had passed when the measurement
    was restarted: rates, latencies, amounts, counts and starvation are of the time since.
    `outcome_by` is who ended the run with its `status`: the robot, which knows its task (the simulator does), the
    operator, or the run itself (time over, a hold, a fault).
    `answered_by` is who answered the high level's newest call, "" where only one could, and `missed` why it was not the
    remote one. How often who did is in `counts`, how fast in `latencies`.
    `actions_sha256` covers every chunk sent, times included relative to the first: two lock-step runs of one seed on
    one CPU must agree in it.
    """

    mode: Literal["lockstep", "realtime"]
    goal: str
    seed: int
    status: Status = "running"
    reason: str = ""
    outcome_by: Judge = "run"
    steps: int = 0
    duration_ns: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    starved_ns: int = 0
    latencies: dict[str, LatencySeries] = field(default_factory=dict)
    amounts: dict[str, Distribution] = field(default_factory=dict)
    unmeasured_ns: int = 0
    subgoals: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=SUBGOALS_KEPT))
    robot: Mapping[str, Any] = field(default_factory=dict)
    answered_by: str = ""
    missed: str = ""
    _actions: Any = field(default_factory=hashlib.sha256, repr=False)
    _first_t0_ns: int | None = field(default=None, repr=False)

    def latency(self, stage: str, duration_ns: int) -> None:
        """Record one call of one stage."""
        self.latencies.setdefault(stage, LatencySeries()).record(duration_ns)

    def stages(self, prefix: str, reply: object) -> None:
        """Record every stage that a policy's reply carries, as "prefix: stage", and what it counted."""
        for name, duration_ns in stage_durations(reply):
            self.latency(f"{prefix}: {name}", duration_ns)
        for name in AMOUNTS:
            value = getattr(reply, name, None)
            if value is not None:
                self._amount(f"{prefix}: {name.replace('_', ' ')}", int(value))

    def seam(self, jump: float, space: ActionSpace) -> None:
        """Record how far a chunk's first action was from what the robot had been told for that time."""
        self._amount(f"seam [µ{SEAM_UNITS[space]}]", round(jump * 1e6))

    def _amount(self, name: str, value: int) -> None:
        self.amounts.setdefault(name, Distribution()).add(value)

    def restart_measurement(self, duration_ns: int) -> Measured:
        """Measure afresh, `duration_ns` into the run; what had been measured until then.

        A profile forgets what it measured while the run settled, and takes what it measured since before the run ends.
        """
        found = Measured(
            duration_ns - self.unmeasured_ns,
            {stage: series.distribution for stage, series in self.latencies.items()},
            self.amounts,
            self.counts,
            self.starved_ns,
        )
        self.duration_ns = self.unmeasured_ns = duration_ns
        self.latencies, self.amounts, self.counts, self.starved_ns = {}, {}, Counter(), 0
        return found

    def sent(self, chunk: ActionChunk) -> None:
        """Count a chunk and add it to the digest."""
        if self._first_t0_ns is None:
            self._first_t0_ns = chunk.t0_ns
        self.counts["chunks"] += 1
        self._actions.update(np.array([chunk.t0_ns - self._first_t0_ns, chunk.dt_ns], dtype="<i8").tobytes())
        self._actions.update(np.ascontiguousarray(chunk.actions, dtype="<f8").tobytes())

    def new_subgoal(self, subgoal: Subgoal, at_s: float) -> None:
        """Note a subgoal that differs from the one before, `at_s` seconds into the run."""
        self.counts["subgoals"] += 1
        self.subgoals.append((at_s, subgoal.text))

    def rate_hz(self, stage: str) -> float:
        """Calls per second of the time measured."""
        series, measured_ns = self.latencies.get(stage), self.duration_ns - self.unmeasured_ns
        return series.distribution.count / (measured_ns / NS_PER_S) if series and measured_ns else 0.0

    @property
    def answers(self) -> dict[str, int]:
        """How often who answered the high level's calls; empty where only one could."""
        names = {"remote": "answered by remote", "on board": "answered on board", "nobody": "unanswered calls"}
        found = {who: self.counts[name] for who, name in names.items()}
        return found if any(found.values()) else {}

    @property
    def actions_sha256(self) -> str:
        """The digest of all actions sent."""
        digest: str = self._actions.hexdigest()
        return digest

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for `--json`."""
        summaries = {stage: series.summary() for stage, series in self.latencies.items()}
        return {
            "mode": self.mode,
            "goal": self.goal,
            "seed": self.seed,
            "outcome": self.status,
            "reason": self.reason,
            "outcome_by": self.outcome_by,
            "success": self.status == "success",
            "steps": self.steps,
            "duration_s": self.duration_ns / NS_PER_S,
            "high_level_hz": self.rate_hz("high level"),
            "low_level_hz": self.rate_hz("low level"),
            "starved_ms": self.starved_ns / NS_PER_MS,
            "counts": dict(self.counts),
            **({"high_level_answers": self.answers} if self.answers else {}),
            "latency_ms": {
                stage: {"count": s.count, "p50": s.p50_ms, "p90": s.p90_ms, "p99": s.p99_ms, "max": s.max_ms}
                for stage, s in summaries.items()
                if s is not None
            },
            "amounts": {
                name: {"count": found.count, "p50": found.percentile(50), "max": found.max}
                for name, found in self.amounts.items()
            },
            "subgoals": [{"t_s": t_s, "text": text} for t_s, text in self.subgoals],
            "robot_values": dict(self.robot),
            "actions_sha256": self.actions_sha256,
        }
