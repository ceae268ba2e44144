"""`memrt bench control`: how late the control thread is, beside the same loop in Python, while Python is busy.

Both step the same seam at the same rate towards absolute deadlines, and both ask for the same real-time priority. A
Python thread that never lets go of the interpreter runs beside them: in a robot's process it is whatever parses a reply
or writes a log. The C++ thread does not know Python's lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from memrt.runtime._core import ControlLoop, Seam, SeamLimits
from memrt.runtime.bench.hardware import hardware, take_realtime, versions
from memrt.runtime.statistics import median, percentile

Progress = Callable[[str], None]
HOME = np.array([0.0, -np.pi / 4, 0.0, -3 * np.pi / 4, 0.0, np.pi / 2, np.pi / 4])  # the FR3's start posture
NS_PER_MS = 1e6
OURS, PYTHON = "ours", "python"


def bench_control(*, rate_hz: float, seconds: float, runs: int, progress: Progress) -> dict[str, Any]:
    """The report, as plain JSON values. Each of `runs` lasts `seconds` per loop; the median of their p99 counts."""
    before = hardware()
    late: dict[str, list[dict[str, float]]] = {OURS: [], PYTHON: []}
    realtime: dict[str, bool] = {}
    for run in range(runs):
        for name, loop in ((OURS, control_lateness), (PYTHON, _python_loop)):
            with _busy_interpreter():
                found, realtime[name] = loop(rate_hz, seconds)
            late[name].append(found)
            progress(f"run {run + 1} of {runs}, {name}: " + ", ".join(f"{k} {v:.3f} ms" for k, v in found.items()))
    p99 = {name: median([run["p99"] for run in found]) for name, found in late.items()}
    return {
        "bench": "control",
        "rate_hz": rate_hz,
        "seconds": seconds,
        "runs": runs,
        **{f"{name}_p99_ms": round(value, 4) for name, value in p99.items()},
        "speedup": {PYTHON: round(p99[PYTHON] / p99[OURS], 2)},
        "realtime": realtime,
        "all_runs_ms": late,
        "how": "lateness of wake-ups at absolute deadlines, in turns, beside a Python thread that never rests",
        "hardware": before,
        "versions": versions(("memrt", "numpy")),
        "measured_on": "CPU",
    }


def control_lateness(rate_hz: float, seconds: float) -> tuple[dict[str, float], bool]:
    """Median, p99 and largest lateness [ms] of the robots' control thread; whether it had real-time priority."""
    loop = ControlLoop(SeamLimits.fr3(), rate_hz)
    loop.start(HOME, 1.0)
    time.sleep(seconds)
    stats = loop.stats()
    loop.shutdown()
    found = {name: stats["late_ns"][name] / NS_PER_MS for name in ("median", "p99", "max")}
    return found, stats["realtime"]


def _python_loop(rate_hz: float, seconds: float) -> tuple[dict[str, float], bool]:
    """The same in a Python thread."""
    late: list[float] = []
    realtime: list[bool] = []

    def run() -> None:
        realtime.append(take_realtime())
        seam, period = Seam(SeamLimits.fr3()), round(1e9 / rate_hz)
        start = time.monotonic_ns()
        seam.reset(HOME, 1.0, start)
        deadline, end = start + period, start + round(seconds * 1e9)
        while deadline < end:
            time.sleep(max(0, deadline - time.monotonic_ns()) / 1e9)
            woke = time.monotonic_ns()
            late.append((woke - deadline) / NS_PER_MS)
            seam.step(deadline)
            deadline += period
            if deadline <= woke:
                deadline += ((woke - deadline) // period + 1) * period

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return {"median": median(late), "p99": percentile(late, 99.0), "max": max(late)}, realtime[0]


@contextmanager
def _busy_interpreter() -> Iterator[None]:
    """A thread that holds Python's lock for as long as it is let."""
    quit_now = False

    def compute() -> None:
        number = 0
        while not quit_now:
            number += 1

    thread = threading.Thread(target=compute, daemon=True)
    thread.start()
    try:
        yield
    finally:
        quit_now = True
        thread.join()
