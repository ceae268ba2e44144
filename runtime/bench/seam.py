"""`memrt bench seam`: whether any command, whatever is pushed and whenever, leaves the robot's limits.

Random cases on a virtual clock (runtime/core/seam_cases.hpp says what is drawn and how it is judged): every millisecond
a command of an FR3, differences of the commands against the limits, and the rms distance to the chunk's spline where
that spline itself is feasible. A case depends on its number alone, so that a breach can be looked at again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from memrt.runtime._core import play_seam_cases
from memrt.runtime.bench.hardware import hardware, usable_cores, versions
from memrt.runtime.statistics import percentile, wilson95

if TYPE_CHECKING:
    from memrt.runtime._core import SeamReport

Progress = Callable[[str], None]
BLOCK = 500  # cases between two words of progress
TRACKING_LIMIT = 5e-3  # rms [rad] where the chunk is feasible
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
_SUMS = (
    "commands",
    "chunks",
    "refused",
    "dropouts",
    "stops",
    "limit_brakes",
    "plan_failures",
    "infeasible",
    "too_short",
)
_SHARES = ("speed", "acceleration", "jerk")


def bench_seam(*, first: int, cases: int, progress: Progress) -> dict[str, Any]:
    """The report, as plain JSON values, of cases number `first` to `first + cases - 1`, on all usable cores."""
    before, start = hardware(), time.perf_counter()
    blocks = [(number, min(BLOCK, first + cases - number)) for number in range(first, first + cases, BLOCK)]
    parts: list[SeamReport] = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        for part in pool.map(lambda block: play_seam_cases(*block), blocks):
            parts.append(part)
            progress(
                f"{sum(p['cases'] for p in parts)} of {cases} cases, {sum(p['violations'] for p in parts)} breaches"
            )
    seconds = time.perf_counter() - start
    rms = np.concatenate([part["tracking_rms"] for part in parts])
    violations = sum(part["violations"] for part in parts)
    worst = max(parts, key=lambda part: part["tracking_rms"].max(initial=0.0))
    return {
        "bench": "seam",
        "first_case": first,
        "episodes": cases,
        "success_rate": 1.0 - violations / cases,
        "wilson95": list(wilson95(cases - violations, cases)),
        "violations": violations,
        "first_violation": min(part["first_violation"] for part in parts) if violations else None,
        "largest_share_of_limit": {name: max(part[f"{name}_used"] for part in parts) for name in _SHARES},  # type: ignore[literal-required]
        "furthest_outside_range_rad": max(part["outside"] for part in parts),
        "counts": {name: sum(part[name] for part in parts) for name in _SUMS},  # type: ignore[literal-required]
        "tracked_chunks": len(rms),
        "tracking_rms_mrad": {name: round(1e3 * percentile(rms.tolist(), p), 4) for name, p in PERCENTILES.items()}
        if len(rms)
        else None,
        "tracking_above_limit": int((rms > TRACKING_LIMIT).sum()),
        "tracking_limit_mrad": 1e3 * TRACKING_LIMIT,
        "worst_tracked_case": worst["worst_tracked"] if len(rms) else None,
        "seconds": round(seconds, 2),
        "how": "differences of 1 ms commands against FR3 limits; tracking where the spline needs at most 0.8 of them",
        "hardware": before,
        "versions": versions(("memrt", "numpy", "ruckig")),
        "measured_on": "virtual clock, CPU",
    }
