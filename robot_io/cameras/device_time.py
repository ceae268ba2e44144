"""A camera's own time stamps on this computer's CLOCK_MONOTONIC.

A device's counter has an unknown offset. Each arrival bounds it from above (a picture arrives after it was taken), and
the quickest arrival of the last few seconds is the best bound: what stays is the shortest way from sensor to here. The
window is short enough that the counters' drift (100 ppm at worst, 1 ms in ten seconds) does not matter.
"""

from __future__ import annotations

from collections import deque

from memrt.runtime.clock import NS_PER_S

WINDOW_NS = 10 * NS_PER_S
WINDOW_ARRIVALS = 1024  # bounds the memory at any frame rate
JUMP_NS = NS_PER_S  # an arrival this much slower than the quickest is another count: wrapped, reset or resumed
OLDEST_NS = NS_PER_S  # a stamp of the host's wall clock that is older than this (or from the future) is not believed


class DeviceClock:
    """Estimates one device counter's offset. Used by one thread."""

    def __init__(self) -> None:
        # Candidates for the quickest arrival, offsets rising: (received, received − device).
        self._offsets: deque[tuple[int, int]] = deque()
        self._last_device_ns: int | None = None
        self.restarts = 0

    def to_monotonic(self, device_ns: int, received_ns: int) -> int:
        """When the device's count was `device_ns`; never later than `received_ns`, the time the stamp arrived here.

        Calls come in the order of arrival. A count that goes back or jumps begins a new estimate.
        """
        offset = received_ns - device_ns
        if self._last_device_ns is not None:
            quickest = self._offsets[0][1]
            if device_ns < self._last_device_ns or abs(offset - quickest) > JUMP_NS:
                self._offsets.clear()
                self.restarts += 1
        self._last_device_ns = device_ns
        while self._offsets and self._offsets[-1][1] >= offset:
            self._offsets.pop()
        self._offsets.append((received_ns, offset))
        while self._offsets[0][0] < received_ns - WINDOW_NS or len(self._offsets) > WINDOW_ARRIVALS:
            self._offsets.popleft()
        return device_ns + self._offsets[0][1]


def wall_to_monotonic(stamp_ns: int, wall_now_ns: int, received_ns: int) -> int:
    """When the wall clock (CLOCK_REALTIME) showed `stamp_ns`, both clocks having been read just now.

    A stamp from the future or older than a second (the wall clock was set in between) counts as the arrival.
    """
    age_ns = wall_now_ns - stamp_ns
    return received_ns - age_ns if 0 <= age_ns <= OLDEST_NS else received_ns
