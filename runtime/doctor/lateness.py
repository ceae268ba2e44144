"""How late the control thread really is here: what kernel, rights, clocks and other programs come to.

Measured with the thread that the robots' nodes run, at 1 kHz, while nothing else of memrt runs (`measure`). Sources:
absolute deadlines, clock_nanosleep(2); Franka's requirement of one answer per millisecond.
"""

from __future__ import annotations

from memrt.runtime.doctor.finding import Finding, fine, unknown, warning
from memrt.runtime.doctor.snapshot import Snapshot

P99_MS, MAX_MS = 0.1, 1.0  # a tenth of the period, and the period: a later wake-up misses its tick


def examine(snapshot: Snapshot) -> list[Finding]:
    """The one finding about lateness."""
    about, late = "control thread at 1 kHz", snapshot.lateness
    if late is None:
        return [unknown(about, "not measured")]
    found = f"late by p99 {late.p99_ms:.3f} ms, at most {late.max_ms:.2f} ms in {late.seconds:g} s"
    if late.p99_ms <= P99_MS and late.max_ms <= MAX_MS:
        return [fine(about, found)]
    cost = (
        "at least one control tick was missed; a Franka uses the last torque again, and stops after 20"
        if late.max_ms > MAX_MS
        else f"more than {P99_MS:g} ms of each millisecond's budget is gone before the control step begins"
    )
    mend = (
        "# mend what is found under kernel, rights, processor and memory, then measure again on a quiet computer",
        "ps -eo rtprio,ni,pcpu,comm --sort=-pcpu | head",
    )
    return [warning(about, found, cost, *mend)]
