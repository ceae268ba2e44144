"""Looks at running cameras for a while: rate, age on arrival, losses, and how far their pictures lie apart in time."""

from __future__ import annotations

import time
from typing import Any

from memrt.robot_io.cameras.alignment import nearest
from memrt.robot_io.cameras.rig import CameraRig
from memrt.robot_io.cameras.settings import CameraConfig
from memrt.runtime._core import FrameRing
from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.statistics import median

LOOK_S = 0.001
STALE_MS = 100.0  # older than this at arrival already, a frame would start no inference (the loop's default gate)
LEAST_RATE = 0.9  # share of the configured rate; auto-exposure in the dark is what usually halves it


def watch(rig: CameraRig, seconds: float) -> dict[str, dict[str, Any]]:
    """Per camera, over `seconds`: frames, fps, age_ms (median, max on arrival), lost, reconnects, skew_ms, trouble.

    `skew_ms` is how far the camera's nearest picture is from each one of the first camera (median, max). What no frame
    came for is null. Ages are read by looking every millisecond.
    """
    before = rig.counts
    rings = {name: FrameRing.open(ring) for name, ring in rig.rings.items()}
    seen: dict[str, list[tuple[int, int]]] = {name: [] for name in rings}  # (time, age on arrival)
    last = dict.fromkeys(rings, -1)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for name, ring in rings.items():
            frame = ring.borrow()
            if frame is None:
                continue
            with frame:
                index, t_ns = frame.index, frame.t_ns
            if index > last[name]:
                if last[name] >= 0:  # the first one seen may have been there for long
                    seen[name].append((t_ns, time.monotonic_ns() - t_ns))
                last[name] = index
        time.sleep(LOOK_S)
    for ring in rings.values():
        ring.close()
    reference = next(iter(seen.values()), [])
    return {
        name: _account(seen[name], [t for t, _ in reference])
        | {
            "lost": counts.lost - before[name].lost,
            "unread": counts.unread - before[name].unread,
            "reconnects": counts.reconnects - before[name].reconnects,
            "ended": counts.ended,
            "trouble": counts.trouble,
        }
        for name, counts in rig.counts.items()
    }


def problems(report: dict[str, Any], config: CameraConfig) -> list[str]:
    """What is wrong with a camera that `watch` looked at, one clause each; empty when nothing is."""
    found = []
    if report["trouble"]:
        found.append(report["trouble"])
    if report["ended"]:
        found.append("the recording ended")
    elif report["fps"] is None:
        found.append("no picture came")
    elif report["fps"] < LEAST_RATE * config.fps:
        found.append(f"{report['fps']:.1f} frames/s instead of {config.fps}")
    if report["age_ms"] is not None and report["age_ms"][0] > STALE_MS:
        found.append(f"pictures are {report['age_ms'][0]:.0f} ms old when they arrive")
    if report["lost"]:
        found.append(f"{report['lost']} frames lost on the way")
    return found


def _account(seen: list[tuple[int, int]], reference: list[int]) -> dict[str, Any]:
    times = [t for t, _ in seen]
    ages = [age / NS_PER_MS for _, age in seen]
    span_ns = times[-1] - times[0] if len(times) > 1 else 0
    skews = [abs(times[nearest(times, t)] - t) / NS_PER_MS for t in reference] if times else []
    return {
        "frames": len(seen),
        "fps": round((len(seen) - 1) * NS_PER_S / span_ns, 2) if span_ns else None,
        "age_ms": _median_and_max(ages),
        "skew_ms": _median_and_max(skews),
    }


def _median_and_max(values: list[float]) -> list[float] | None:
    return [round(median(values), 2), round(max(values), 2)] if values else None
