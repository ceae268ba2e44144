"""`memrt bench ring`: the frame ring beside a bare copy, whether a reader ever sees half a frame, what an event costs.

Writing a frame costs a copy of its pixels; the ring must not cost more. Looking at one costs no copy at all. The third
question is no speed: a writer in a process of its own overwrites small frames as fast as it can, each filled with its
own number, while a reader checks every byte of every frame it borrows. Last, the trace ring: nanoseconds per event.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrt.runtime._core import FrameRing
from memrt.runtime.bench.hardware import hardware, versions
from memrt.runtime.errors import MemrtError
from memrt.runtime.statistics import median
from memrt.runtime.trace import Trace

Progress = Callable[[str], None]
SLOTS = 4
SMALL = (32, 32, 3)  # pixels of the torn-frame check: the smaller, the more often a reader meets the writer
PER_TIMING = 20  # frames per timing: a single one is close to what the clock can tell
BORROWS = 2000
EVENTS = 2000
NS_PER_MS, NS_PER_US = 1e6, 1e3
WRITER_SECONDS = 20.0  # for the other process to begin


def bench_ring(*, height: int, width: int, runs: int, reads: int, progress: Progress) -> dict[str, Any]:
    """The report, as plain JSON values. Times are medians of `runs`; `reads` frames are checked for tears."""
    before = hardware()
    progress(f"writing {height}x{width} frames, in turns with a bare copy")
    times = _write_times(height, width, runs)
    progress("borrowing")
    borrow_us = _borrow_time(height, width, runs)
    progress("recording events")
    record_ns = _record_times(runs)
    progress(f"checking {reads} frames against a writer at full speed")
    torn, seen, written = _torn_reads(reads)
    ours, copy = (median(times[name]) for name in ("write", "copy"))
    return {
        "bench": "ring",
        "frame": [height, width, 3],
        "runs": runs,
        "write_ms": round(ours, 5),
        "copy_ms": round(copy, 5),
        "speedup": {"copy": round(copy / ours, 3)},
        "write_over_copy": round(ours / copy, 3),
        "borrow_us": round(borrow_us, 4),
        "record_ns": {name: round(value, 1) for name, value in record_ns.items()},
        "reads": reads,
        "torn_reads": torn,
        "frames_seen": seen,
        "frames_written": written,
        "all_runs_ms": {name: [round(value, 5) for value in values] for name, values in times.items()},
        "how": "in turns in one process; torn frames: writer in a process of its own",
        "hardware": before,
        "versions": versions(("memrt", "numpy")),
        "measured_on": "CPU",
    }


def _write_times(height: int, width: int, runs: int) -> dict[str, list[float]]:
    """Milliseconds per frame: into the ring, and into as many arrays as the ring has slots, one after another."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    copies = [np.zeros_like(image) for _ in range(SLOTS)]
    times: dict[str, list[float]] = {"write": [], "copy": []}
    with FrameRing.create(_name("write"), SLOTS, height, width) as ring:
        for run in range(-1, runs):  # the first fills caches and page tables
            start = time.perf_counter_ns()
            for index in range(PER_TIMING):
                ring.write(image, index, 0)
            middle = time.perf_counter_ns()
            for index in range(PER_TIMING):
                np.copyto(copies[index % SLOTS], image)
            end = time.perf_counter_ns()
            if run >= 0:
                times["write"].append((middle - start) / PER_TIMING / NS_PER_MS)
                times["copy"].append((end - middle) / PER_TIMING / NS_PER_MS)
    return times


def _borrow_time(height: int, width: int, runs: int) -> float:
    """Microseconds to borrow the newest frame and to let it go."""
    with FrameRing.create(_name("borrow"), SLOTS, height, width) as writer, FrameRing.open(writer.name) as reader:
        writer.write(np.zeros((height, width, 3), np.uint8), 1, 0)
        times = []
        for _ in range(runs + 1):
            start = time.perf_counter_ns()
            for _ in range(BORROWS):
                frame = reader.borrow()
                assert frame is not None
                frame.release()
            times.append((time.perf_counter_ns() - start) / BORROWS / NS_PER_US)
        return median(times[1:])


def _record_times(runs: int) -> dict[str, float]:
    """Nanoseconds per event from Python, its loop included: into the ring, and through `Trace` by kind of argument."""
    trace = Trace()
    ways: dict[str, Callable[[int], object]] = {
        "empty_loop": lambda index: None,
        "ring": lambda index: trace.ring.record(0, index, 1, index),
        "span": lambda index: trace.span("call", "bench", index, index + 1),
        "span_integer": lambda index: trace.span("call", "bench", index, index + 1, revision=index),
        "instant_text": lambda index: trace.instant("hold", "bench", index, reason="camera stale"),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, record in ways.items():
            start = time.perf_counter_ns()
            for index in range(EVENTS):
                record(index)
            times[name].append((time.perf_counter_ns() - start) / EVENTS)
            trace.collect()
    return {name: median(found) for name, found in times.items()}


def _torn_reads(reads: int) -> tuple[int, int, int]:
    """(frames that were not all one number, different frames seen, frames written) over `reads` borrowed frames."""
    context = multiprocessing.get_context("spawn")
    name, stop = _name("torn"), context.Event()
    writer = context.Process(target=_write_flat_out, args=(name, stop), daemon=True)
    writer.start()
    try:
        with _opened(name) as ring:
            torn, seen, last = 0, 0, -1
            for _ in range(reads):
                frame = ring.borrow()
                if frame is None:
                    continue
                image: NDArray[np.uint8] = frame.image
                torn += int((image != frame.index & 0xFF).any())
                seen += int(frame.index != last)
                last = frame.index
                frame.release()
            return torn, seen, ring.written
    finally:
        stop.set()
        writer.join()


def _write_flat_out(name: str, stop: Any) -> None:
    images = [np.full(SMALL, value, np.uint8) for value in range(256)]
    with FrameRing.create(name, SLOTS, SMALL[0], SMALL[1]) as ring:
        index = 0
        while not stop.is_set():
            for _ in range(1000):  # asking the event takes longer than writing a frame
                ring.write(images[index & 0xFF], index, 0)
                index += 1


def _opened(name: str) -> FrameRing:
    """The ring once it holds a frame."""
    give_up = time.monotonic() + WRITER_SECONDS
    while True:
        try:
            ring = FrameRing.open(name)
            if ring.written:
                return ring
            ring.close()
        except RuntimeError:
            pass
        if time.monotonic() > give_up:
            raise MemrtError(
                "writer of the torn-frame check",
                expected=f"a first frame within {WRITER_SECONDS:.0f} s",
                found="none",
                fix="see its message above; shared memory (/dev/shm) may be full",
            )
        time.sleep(0.01)


def _name(what: str) -> str:
    return f"memrt-bench-{what}-{os.getpid()}"
