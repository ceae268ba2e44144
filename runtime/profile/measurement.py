"""Measures the windows of a profile with the same loop that drives a robot."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from memrt.runtime.bench.hardware import peak_bytes, resident_bytes
from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.protocols import HighLevel, LowLevel, TaskRobot
from memrt.runtime.loop.realtime import RealtimeLoop, warm_up
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.profile.fixed_subgoal import FixedSubgoal
from memrt.runtime.profile.protocol import MIN_REST, OFF, ON, ORDER, ProfileProtocol
from memrt.runtime.profile.window import BROKEN_OFF, Control, Episode, Window

BROKEN_IN_A_ROW = 3  # episodes of one window that ended in a hold, a fault or before they had settled: the next would

OpenRobot = Callable[[int], AbstractContextManager[tuple[TaskRobot, str]]]  # seed -> (a robot that is connected, goal)
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is profiled: two policies and where they find a robot for an episode of a given seed."""

    high_level: HighLevel
    low_level: LowLevel
    settings: LoopSettings
    open_robot: OpenRobot
    goal: str | None = None


def measure(
    subject: Subject, protocol: ProfileProtocol, progress: Progress, on_warm: Callable[[], None]
) -> list[Window]:
    """The windows of the protocol, in its order. `on_warm` is called whenever both policies have been warmed up.

    Raises MemrtError when a window could measure next to nothing, and whatever a policy raises.
    """
    windows: list[Window] = []
    for number, condition in enumerate(ORDER, start=1):
        progress(f"window {number} of {len(ORDER)}: {condition}, {protocol.seconds:g} s")
        window = Window(condition, ORDER[:number].count(condition))
        high_level = subject.high_level if condition == ON else FixedSubgoal(windows[0].first_subgoal)
        _fill(window, high_level, subject, protocol, on_warm)
        if window.duration_ns < protocol.seconds * NS_PER_S / 2:
            last = window.episodes[-1]
            raise MemrtError(
                f"profile, window {number} ({condition})",
                expected=f"{protocol.seconds:g} s of a run that goes on",
                found=f"{len(window.episodes)} episodes, the last ended as `{last.ended}`: {last.reason}",
                fix="see what `memrt run` says with the same options",
            )
        windows.append(window)
        progress(_summary(window))
    return windows


def _fill(
    window: Window, high_level: HighLevel, subject: Subject, protocol: ProfileProtocol, on_warm: Callable[[], None]
) -> None:
    """Run episodes until the window has its seconds."""
    wanted_ns, broken = round(protocol.seconds * NS_PER_S), 0
    while (rest_ns := wanted_ns - window.duration_ns) > MIN_REST * wanted_ns and broken < BROKEN_IN_A_ROW:
        settings = replace(subject.settings, seed=subject.settings.seed + len(window.episodes))
        with subject.open_robot(settings.seed) as (robot, task):
            goal = subject.goal or task
            warm_up(high_level, subject.low_level, goal, robot.observe(), settings, protocol.warm_up_calls)
            on_warm()
            meter = _Meter(window, robot, protocol.settle_s)
            loop = RealtimeLoop(
                robot, high_level, subject.low_level, goal, settings, trace=window.trace, end_on_hold=True
            )
            record = loop.run(protocol.settle_s + rest_ns / NS_PER_S, meter.tick)
        window.first_subgoal = window.first_subgoal or next((text for _, text in record.subgoals), goal)
        window.episodes.append(Episode(settings.seed, meter.seconds, record.status, record.reason))
        useless = record.status in BROKEN_OFF or not meter.seconds
        broken = broken + 1 if useless else 0
    if window.condition == OFF:  # asking for a fixed subgoal is no call of a policy
        for found in (window.latencies, window.amounts):
            for name in [name for name in found if name.startswith("high level")]:
                del found[name]
    window.resident_bytes, window.peak_bytes = resident_bytes(), peak_bytes()
    window.held_bytes = dict(getattr(high_level, "held_bytes", {}))


class _Meter:
    """Looks at a running loop: lets it settle, then measures, and when the run has ended tells the window."""

    def __init__(self, window: Window, robot: TaskRobot, settle_s: float) -> None:
        self._window, self._robot = window, robot
        self._settle_ns = round(settle_s * NS_PER_S)
        self._began_ns: int | None = None
        self._from_ns: int | None = None
        self._before: Mapping[str, Any] = {}
        self.seconds = 0.0

    def tick(self, running: RealtimeLoop) -> None:
        """Call at every tick of the supervisor, the one that ended the run included."""
        now_ns, trace = time.monotonic_ns(), self._window.trace
        if self._began_ns is None:  # the first: the robot is armed now
            self._began_ns = now_ns
        if self._from_ns is None and now_ns >= self._began_ns + self._settle_ns:
            running.restart_measurement()
            self._from_ns, self._before = now_ns, dict(self._robot.statistics)
            trace.span("settling", "profile", self._began_ns, now_ns)
        elif self._from_ns is not None and running.record.status != "running":
            # Before the loop is shut down: calls that end later, with no robot to follow, do not count.
            measured = running.restart_measurement()
            self.seconds = measured.duration_ns / NS_PER_S
            trace.span("measured", "profile", self._from_ns, now_ns)
            self._window.take(measured, Control.between(self._before, self._robot.statistics), self._from_ns, now_ns)


def _summary(window: Window) -> str:
    stages = (name for name in ("high level", "low level") if name in window.latencies)
    found = ", ".join(f"{name} {window.latencies[name].percentile(99) / NS_PER_MS:.1f} ms p99" for name in stages)
    ends = sorted({f"{episode.ended}: {episode.reason}" for episode in window.episodes if episode.ended != "time_over"})
    return "; ".join([f"  {window.duration_ns / NS_PER_S:.1f} s measured", found or "no call ended", *ends])
