"""What a reader must know before trusting the figures: a busy computer, clocks that move, too few calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from memrt.runtime.doctor.processor import BUSY
from memrt.runtime.profile.window import Window

TAIL_CALLS = 100  # below, p99 is one of the two largest


def remarks(hardware: Mapping[str, Any], windows: Sequence[Window]) -> list[str]:
    """Sentences; none for a quiet computer that was measured long enough."""
    found = []
    load, cores = hardware["load_before"], hardware["cores"]
    if load > BUSY * cores:
        found.append(f"the computer was busy before the profile began: load {load:g} on {cores} cores")
    governors = hardware.get("cpu_clocks", {}).get("governors", [])
    if governors and governors != ["performance"]:
        found.append(
            f"the CPU's clock is governed by `{', '.join(governors)}`, so a first call after a pause is slower"
        )
    if not hardware.get("realtime_priority", True):
        found.append("this user may not have real-time priority: a busy computer delays a robot's node started here")
    for stage in ("high level", "low level"):
        calls = min((w.latencies[stage].count for w in windows if stage in w.latencies), default=0)
        if calls < TAIL_CALLS:
            found.append(f"{stage}: {calls} calls in the shortest window, so p99 is close to the slowest of them")
    dropped = sum(window.trace.dropped for window in windows)
    if dropped:
        found.append(f"{dropped} of the oldest events are missing in trace.json; the figures count every call")
    return found
