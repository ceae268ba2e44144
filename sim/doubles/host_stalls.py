"""Measures when this computer itself stood still: one thread per core that sleeps a millisecond and notes gaps.

The threads are of the real-time class, above everything that a run brings along, where that is permitted: then what
holds them up is the hypervisor or the kernel, and no program of ours. Where it is not, busy programs count as well.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from types import TracebackType

from memrt.runtime.clock import NS_PER_MS, NS_PER_S

PRIORITY = 90  # SCHED_FIFO, above the control threads' 80
STALL_NS = 5 * NS_PER_MS  # a robot waits 20 ms for a command; shorter gaps than this a driver rides out
LOOK_S = 1.0  # between two looks whether whoever started this has ended
KEPT = 10_000  # stalls of each core; the oldest are forgotten


@dataclass(frozen=True, slots=True)
class Stall:
    """A core ran nothing of ours from `start_ns` to `end_ns`, CLOCK_MONOTONIC."""

    core: int
    start_ns: int
    end_ns: int

    @property
    def ms(self) -> float:
        """How long."""
        return (self.end_ns - self.start_ns) / NS_PER_MS

    def near(self, t_ns: int, within_ns: int) -> bool:
        """Whether `t_ns` lies within the stall, or at most `within_ns` outside of it."""
        return self.start_ns - within_ns <= t_ns <= self.end_ns + within_ns


class HostStalls:
    """Watches while it is open, in a process of its own. `stalls` is complete once it is closed."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe(duplex=False)
        self._end = context.Event()
        self._process = context.Process(target=_watch, args=(theirs, self._end), name="host stalls", daemon=True)
        self._process.start()
        theirs.close()
        self.real_time: bool = self._ours.recv()
        self.stalls: list[Stall] = []

    def close(self) -> None:
        """End, and collect what was seen."""
        if not self._end.is_set():
            self._end.set()
            self.stalls = self._ours.recv()
            self._process.join()

    def near(self, t_ns: int, within_ns: int) -> Stall | None:
        """The longest stall around a time, of those collected."""
        found = [stall for stall in self.stalls if stall.near(t_ns, within_ns)]
        return max(found, key=lambda stall: stall.ms, default=None)

    def __enter__(self) -> HostStalls:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _watch(tell: Connection, end: Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cores = sorted(os.sched_getaffinity(0))
    seen = {core: deque[Stall](maxlen=KEPT) for core in cores}
    permitted, starter = _real_time(), os.getppid()
    tell.send(permitted)
    quit_ = threading.Event()
    threads = [threading.Thread(target=_watch_core, args=(core, seen[core], quit_)) for core in cores]
    for thread in threads:
        thread.start()
    while os.getppid() == starter and not end.wait(LOOK_S):
        pass
    quit_.set()
    for thread in threads:
        thread.join()
    with contextlib.suppress(OSError):  # who asked may have ended
        tell.send(sorted((stall for stalls in seen.values() for stall in stalls), key=lambda stall: stall.start_ns))


def _watch_core(core: int, seen: deque[Stall], quit_: threading.Event) -> None:
    os.sched_setaffinity(0, {core})
    _real_time()
    last_ns = time.monotonic_ns()
    while not quit_.is_set():
        time.sleep(NS_PER_MS / NS_PER_S)
        now_ns = time.monotonic_ns()
        if now_ns - last_ns > STALL_NS:
            seen.append(Stall(core, last_ns, now_ns))
        last_ns = now_ns


def _real_time() -> bool:
    """Put the calling thread before all others; False where that takes a right we do not have."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except PermissionError:
        return False
    return True
