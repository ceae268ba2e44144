"""The budget: what the policy's own rates ask of a computer, what was found, and what to try where it falls short."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.distribution import Distribution
from memrt.runtime.loop.scheduler import delay_steps
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.policy.chunking import executed, feasible
from memrt.runtime.profile.window import BROKEN_OFF, Control, Window

NO_CALL = "let the window last longer than a call (--seconds)"
FASTER = "fewer denoise_steps, smaller images, more --threads, a faster device"


@dataclass(frozen=True, slots=True)
class Line:
    """One demand. `met` is None where it could not be measured; `advice` is "" unless it was not met."""

    what: str
    asked: str
    found: str
    met: bool | None
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What counts, of all windows with the high level on; None where no call ended."""

    high_level_p99_ns: float | None
    silence_ns: int
    low_level_p99_ns: float | None
    chunk_p99_ns: float | None
    late_chunks: int
    starved_ns: int
    control: Control | None
    broken_off: tuple[str, ...]

    @classmethod
    def of(cls, windows: Sequence[Window]) -> Found:
        """From the windows in which both policies ran."""
        return cls(
            high_level_p99_ns=_p99(windows, "high level"),
            silence_ns=max(window.silence_ns for window in windows),
            low_level_p99_ns=_p99(windows, "low level"),
            chunk_p99_ns=_p99(windows, "observation to chunk"),
            late_chunks=sum(window.counts["late chunks"] for window in windows),
            starved_ns=sum(window.starved_ns for window in windows),
            control=Control.of([part for window in windows for part in window.controls]),
            broken_off=tuple(e.reason for window in windows for e in window.episodes if e.ended in BROKEN_OFF),
        )


def budget(settings: LoopSettings, found: Found) -> list[Line]:
    """Every demand that the policy's YAML makes, in the order in which a reader asks."""
    every_tick = [_every_tick(settings, found.low_level_p99_ns)] if settings.calls == "every_tick" else []
    return [
        _period(settings, found.high_level_p99_ns),
        _time_to_live(settings, found.silence_ns),
        chunks_follow(settings, found.chunk_p99_ns),
        *every_tick,
        _gaps(found.late_chunks, found.starved_ns),
        _control(found.control),
        _endings(found.broken_off),
    ]


def met(lines: Sequence[Line]) -> bool:
    """Whether nothing that was measured falls short."""
    return all(line.met is not False for line in lines)


def _period(settings: LoopSettings, p99_ns: float | None) -> Line:
    """The high level must answer before it is asked again."""
    dt_ns, steps = settings.paced_dt_ns, settings.every_steps
    what, asked = "high level: period", f"p99 <= {_ms(steps * dt_ns)} ({steps} steps at {NS_PER_S / dt_ns:g} Hz)"
    if p99_ns is None:
        return Line(what, asked, "no call ended", False, NO_CALL)
    if p99_ns <= steps * dt_ns:
        return Line(what, asked, f"p99 {_ms(p99_ns)}", True)
    advice = (
        f"it is asked as fast as it answers; raise high_level.every_steps to {math.ceil(p99_ns / dt_ns)}, or make it "
        "faster: fewer images or tokens, int4 or int8 engines, another --target"
    )
    return Line(what, asked, f"p99 {_ms(p99_ns)}", False, advice)


def _time_to_live(settings: LoopSettings, silence_ns: int) -> Line:
    """The robot holds when the high level has not answered for its time to live."""
    limit_ns = settings.subgoal_time_to_live_ns
    fits = silence_ns <= limit_ns
    advice = "" if fits else "the robot holds then: raise high_level.time_to_live_s, or make the high level faster"
    asked = f"an answer at least every {limit_ns / NS_PER_S:g} s"
    return Line("high level: time to live", asked, f"longest silence {_ms(silence_ns)}", fits, advice)


def chunks_follow(settings: LoopSettings, p99_ns: float | None) -> Line:
    """Chunks follow each other without a gap iff d <= s <= H - d, d the delay in actions (SPECS 3)."""
    dt_ns, execute, horizon = settings.paced_dt_ns, settings.execute, settings.horizon
    chunked = settings.calls == "chunked"
    longest = min(execute, horizon - execute) if chunked else horizon // 2  # the largest d that fits
    limit_ns = min(longest * dt_ns, (longest + 1) * dt_ns - settings.send_lead_ns)
    rule = f"d <= {execute} <= {horizon} - d" if chunked else f"d <= {horizon} - d"
    what, asked = "low level: observation to chunk", f"p99 <= {_ms(limit_ns)} ({rule}, {_ms(dt_ns)} each)"
    if p99_ns is None:
        return Line(what, asked, "no call ended", False, NO_CALL)
    delay = delay_steps(math.ceil(p99_ns), settings)
    said = f"p99 {_ms(p99_ns)}, d = {delay}"
    if feasible(delay, executed(settings.calls, execute, delay), horizon):
        return Line(what, asked, said, True)
    if chunked and delay <= horizon // 2:  # some s satisfies d <= s <= H - d
        advice = f"set low_level.execute between {delay} and {horizon - delay}"
    else:
        advice = f"nothing helps a delay above {horizon // 2} of {horizon} actions but a longer horizon, or: {FASTER}"
    return Line(what, asked, said, False, advice)


def _every_tick(settings: LoopSettings, p99_ns: float | None) -> Line:
    """A new chunk each control step needs a call that is no longer than one."""
    dt_ns = settings.paced_dt_ns
    what, asked = "low level: every tick", f"a call's p99 <= {_ms(dt_ns)}"
    if p99_ns is None:
        return Line(what, asked, "no call ended", False, NO_CALL)
    fits = p99_ns <= dt_ns
    advice = "" if fits else f"set low_level.calls to `chunked`, or: {FASTER}"
    return Line(what, asked, f"p99 {_ms(p99_ns)}", fits, advice)


def _gaps(late_chunks: int, starved_ns: int) -> Line:
    """The robot must never run out of actions."""
    fits = not late_chunks and not starved_ns
    found = f"{late_chunks} chunks too late to be played, {_ms(starved_ns)} without actions"
    advice = "" if fits else "see which stage has the long tail, and what else runs on this computer"
    return Line("low level: gaps", "none", found, fits, advice)


def _control(control: Control | None) -> Line:
    """The node's control thread must serve every tick."""
    if control is None:
        return Line("control ticks", "none missed", "not measured: this robot controls nothing", None)
    found = f"{control.missed} of {control.ticks} missed"
    if control.missed == 0:
        return Line("control ticks", "none missed", found, True)
    advice = (
        "allow real-time priority (ulimit -r 99), set the CPU governor to `performance`, keep a core for the robot's "
        "node (taskset, isolcpus), use a PREEMPT_RT kernel"
    )
    return Line("control ticks", "none missed", found, False, advice)


def _endings(reasons: Sequence[str]) -> Line:
    """A hold needs a person to go on."""
    if not reasons:
        return Line("holds and faults", "none", "none", True)
    found = f"{len(reasons)}: {'; '.join(dict.fromkeys(reasons))}"
    return Line("holds and faults", "none", found, False, "the loop's table of faults says what leads to each")


def _p99(windows: Sequence[Window], stage: str) -> float | None:
    found = Distribution.merged([window.latencies[stage] for window in windows if stage in window.latencies])
    return found.percentile(99) if found.count else None


def _ms(duration_ns: float) -> str:
    return f"{duration_ns / NS_PER_MS:.4g} ms"
