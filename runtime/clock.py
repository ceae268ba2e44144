"""Time as the loop sees it: one monotonic nanosecond count, real on the robot and set by hand in tests."""

from __future__ import annotations

import threading
import time
from typing import Protocol

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


class Clock(Protocol):
    """A source of CLOCK_MONOTONIC nanoseconds that can also be waited on."""

    def now_ns(self) -> int:
        """The present time."""
        ...

    def wait_until(self, t_ns: int, wake: threading.Event) -> None:
        """Return at `t_ns`, or earlier when `wake` is set; the event is left as it is."""
        ...


class MonotonicClock:
    """The computer's CLOCK_MONOTONIC: it neither jumps with the wall clock nor runs backwards."""

    def now_ns(self) -> int:
        """Nanoseconds since an unspecified start, the same for every process of this computer."""
        return time.monotonic_ns()

    def wait_until(self, t_ns: int, wake: threading.Event) -> None:
        """Sleep without polling until `t_ns` or until `wake` is set."""
        remaining_ns = t_ns - time.monotonic_ns()
        if remaining_ns > 0:
            wake.wait(remaining_ns / NS_PER_S)


class VirtualClock:
    """A clock that moves only when told to: what is decided from it is decided the same way on every computer."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        """The time last set."""
        return self._now_ns

    def advance(self, duration_ns: int) -> None:
        """Let `duration_ns` (not negative) pass."""
        if duration_ns < 0:
            raise ValueError(f"a monotonic clock cannot go back by {-duration_ns} ns")
        self._now_ns += duration_ns

    def wait_until(self, t_ns: int, wake: threading.Event) -> None:
        """Jump to `t_ns` unless `wake` is set or that time has passed."""
        if not wake.is_set():
            self._now_ns = max(self._now_ns, t_ns)
