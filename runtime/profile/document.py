"""A profile as one JSON document: what the terminal, the page and other programs read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.distribution import Distribution
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.profile.comparison import compare
from memrt.runtime.profile.protocol import OFF, ON, ProfileProtocol
from memrt.runtime.profile.remarks import remarks
from memrt.runtime.profile.verdict import Found, budget, met
from memrt.runtime.profile.window import Control, Window, percentiles_ms

SCHEMA_VERSION = 1
TIMELINE_S = 5.0  # of every window; the whole is in the trace
Stages = Mapping[str, Distribution]


def as_document(
    about: Mapping[str, Any],
    settings: LoopSettings,
    protocol: ProfileProtocol,
    windows: Sequence[Window],
) -> dict[str, Any]:
    """Plain JSON values. `about` says what ran where: it is put first, unchanged."""
    lines = budget(settings, Found.of([window for window in windows if window.condition == ON]))
    return {
        "profile": about.get("policy", ""),
        "schema_version": SCHEMA_VERSION,
        **about,
        "remarks": remarks(about["hardware"], windows),
        "protocol": protocol.to_dict(),
        "verdict": {"met": met(lines), "lines": [line.to_dict() for line in lines]},
        "conditions": {condition: _condition(windows, condition) for condition in (ON, OFF)},
        "comparison": [found.to_dict() for found in compare(windows)],
        "windows": [_window(window) for window in windows],
    }


def _condition(windows: Sequence[Window], condition: str) -> dict[str, Any]:
    """Both repetitions together."""
    own = [window for window in windows if window.condition == condition]
    seconds = sum(window.duration_ns for window in own) / NS_PER_S
    latencies, amounts = _merged([w.latencies for w in own]), _merged([w.amounts for w in own])
    return {
        "seconds": seconds,
        "rates_hz": {
            "high level calls": latencies["high level"].count / seconds if "high level" in latencies else 0.0,
            "chunks": sum(window.counts["chunks"] for window in own) / seconds,
        },
        "stages": _stages(latencies),
        "amounts": {name: _amount(found) for name, found in amounts.items()},
        "misses": _misses(own, Control.of([part for window in own for part in window.controls])),
    }


def _window(window: Window) -> dict[str, Any]:
    control = window.control
    return {
        "condition": window.condition,
        "repetition": window.repetition,
        "seconds": window.duration_ns / NS_PER_S,
        "subgoal_first": window.first_subgoal,
        "stages": _stages(window.latencies),
        "histograms_ms": {
            stage: [[low / NS_PER_MS, count] for low, count in found.buckets().items()]
            for stage, found in window.latencies.items()
        },
        "control_lateness_ms": dict(control.lateness_ms) if control else None,
        "misses": _misses([window], control),
        "longest_silence_ms": window.silence_ns / NS_PER_MS if window.condition == ON else None,
        "counts": dict(window.counts),
        "episodes": [
            {"seed": e.seed, "seconds": e.seconds, "ended": e.ended, "reason": e.reason} for e in window.episodes
        ],
        "memory": {
            "resident_bytes": window.resident_bytes,
            "peak_bytes": window.peak_bytes,
            "held_bytes": dict(window.held_bytes),
        },
        "trace_events_dropped": window.trace.dropped,
        "timeline": _timeline(window),
    }


def _stages(latencies: Stages) -> dict[str, dict[str, float]]:
    """Milliseconds."""
    return {stage: {"count": found.count, **percentiles_ms(found)} for stage, found in latencies.items() if found.count}


def _misses(windows: Sequence[Window], control: Control | None) -> dict[str, Any]:
    """Deadlines that passed; None where the robot controls nothing."""
    return {
        "control_ticks": control.ticks if control else None,
        "control_ticks_missed": control.missed if control else None,
        "control_ticks_starved": control.starved if control else None,
        "late_chunks": sum(window.counts["late chunks"] for window in windows),
        "starved_ms": sum(window.starved_ns for window in windows) / NS_PER_MS,
    }


def _amount(found: Distribution) -> dict[str, float]:
    return {"count": found.count, "p50": found.percentile(50), "max": found.max}


def _merged(parts: Sequence[Stages]) -> dict[str, Distribution]:
    names = dict.fromkeys(name for part in parts for name in sorted(part))
    return {name: Distribution.merged([part[name] for part in parts if name in part]) for name in names}


def _timeline(window: Window) -> list[list[Any]]:
    """[track, name, start ms, duration ms] of the spans that began in the first seconds that were measured."""
    left_out = {"profile"} | ({"high level"} if window.condition == OFF else set())
    start_ns = window.measured_from_ns or 0
    end_ns = start_ns + round(TIMELINE_S * NS_PER_S)
    return [
        [event.track, event.name, (event.t_ns - start_ns) / NS_PER_MS, event.duration_ns / NS_PER_MS]
        for event in window.trace.events()
        if event.duration_ns is not None and event.track not in left_out and start_ns <= event.t_ns < end_ns
    ]
