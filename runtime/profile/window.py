"""One window of a profile: what was measured in it, and how each of its episodes ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.distribution import Distribution
from memrt.runtime.loop.record import Measured
from memrt.runtime.profile.protocol import ON
from memrt.runtime.trace import Trace, TraceEvent

LATENESS = "control lateness "  # how a robot's node names its figures: "control lateness p99 [ms]"
BROKEN_OFF = ("held", "fault")  # how a run ends that nobody wanted to end
COUNTED = {"ticks": "control ticks", "missed": "control ticks missed", "starved": "control ticks starved"}


@dataclass(frozen=True, slots=True)
class Episode:
    """`seconds` of it were measured; `ended` is the run's status."""

    seed: int
    seconds: float
    ended: str
    reason: str


@dataclass(frozen=True, slots=True)
class Control:
    """The robot's own account. Ticks are of the time measured; lateness [ms] is of the node's whole life."""

    ticks: int
    missed: int
    starved: int
    lateness_ms: Mapping[str, float]

    @classmethod
    def between(cls, before: Mapping[str, Any], after: Mapping[str, Any]) -> Control | None:
        """From the robot's statistics at two moments; None for a robot that controls nothing."""
        if COUNTED["ticks"] not in after:
            return None
        counts = {name: round(after.get(key, 0) - before.get(key, 0)) for name, key in COUNTED.items()}
        lateness = {
            key.removeprefix(LATENESS).removesuffix(" [ms]"): float(value)
            for key, value in after.items()
            if key.startswith(LATENESS)
        }
        return cls(**counts, lateness_ms=lateness)

    @classmethod
    def of(cls, parts: Iterable[Control]) -> Control | None:
        """Several episodes as one: ticks added, of each lateness the worst."""
        known = list(parts)
        if not known:
            return None
        names = dict.fromkeys(name for part in known for name in part.lateness_ms)
        worst = {name: max(part.lateness_ms.get(name, 0.0) for part in known) for name in names}
        ticks, missed, starved = (sum(getattr(part, name) for part in known) for name in COUNTED)
        return cls(ticks, missed, starved, worst)


@dataclass(slots=True)
class Window:
    """Durations in nanoseconds; `latencies` and `amounts` as in `RunRecord`, of all episodes together."""

    condition: str
    repetition: int
    trace: Trace = field(default_factory=Trace)
    duration_ns: int = 0
    latencies: dict[str, Distribution] = field(default_factory=dict)
    amounts: dict[str, Distribution] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    starved_ns: int = 0
    silence_ns: int = 0  # the longest time between two answers of the high level
    first_subgoal: str = ""
    controls: list[Control] = field(default_factory=list)
    episodes: list[Episode] = field(default_factory=list)
    measured_from_ns: int | None = None
    resident_bytes: int = 0
    peak_bytes: int = 0
    held_bytes: Mapping[str, int] = field(default_factory=dict)  # by the high level between calls, where it says so

    def take(self, measured: Measured, control: Control | None, from_ns: int, to_ns: int) -> None:
        """Add what one episode measured between two moments."""
        if self.measured_from_ns is None:
            self.measured_from_ns = from_ns
        if control is not None:
            self.controls.append(control)
        if self.condition == ON:
            self.silence_ns = max(self.silence_ns, longest_silence_ns(self.trace.events(), from_ns, to_ns))
        self.duration_ns += measured.duration_ns
        self.starved_ns += measured.starved_ns
        self.counts.update(measured.counts)
        for mine, new in ((self.latencies, measured.latencies), (self.amounts, measured.amounts)):
            for name, found in new.items():
                mine[name] = Distribution.merged([mine.get(name, Distribution()), found])

    @property
    def control(self) -> Control | None:
        """All episodes' control together."""
        return Control.of(self.controls)

    def rate_hz(self, stage: str) -> float:
        """Calls per second of the time measured."""
        found = self.latencies.get(stage)
        return found.count / (self.duration_ns / NS_PER_S) if found and self.duration_ns else 0.0


def longest_silence_ns(events: Iterable[TraceEvent], from_ns: int, to_ns: int) -> int:
    """The longest time between two answers of the high level, of those that ended in [from_ns, to_ns]."""
    calls = [e for e in events if e.track == "high level" and e.name == "call" and e.duration_ns is not None]
    ends = [e.t_ns + (e.duration_ns or 0) for e in calls]
    heard = [from_ns, *sorted(end for end in ends if from_ns <= end <= to_ns), to_ns]
    return max(later - earlier for earlier, later in pairwise(heard))


def percentiles_ms(found: Distribution) -> dict[str, float]:
    """p50, p90, p99, p99.9 and the largest of durations, in milliseconds."""
    figures = {f"p{percent:g}": found.percentile(percent) / NS_PER_MS for percent in (50, 90, 99, 99.9)}
    return {**figures, "max": found.max / NS_PER_MS}
