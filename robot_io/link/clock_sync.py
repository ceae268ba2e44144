"""The offset between two computers' monotonic clocks, from the quickest of many round trips.

A message that leaves at `sent`, is stamped `remote` over there and is answered at `received` bounds the offset: it is
`remote - (sent + received) / 2`, wrong by at most half the round trip, because each way takes at least no time. The
quickest round trip of a window therefore gives the best estimate, and its half is an honest bound, not a statistic.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from memrt.runtime.clock import NS_PER_MS
from memrt.runtime.errors import MemrtError

WINDOW = 256  # round trips; at 100 a second, clocks that drift 100 ppm apart move 0.26 ms within it
ARM_LIMIT_NS = 5 * NS_PER_MS  # a tenth of a 20 Hz control step


@dataclass(frozen=True, slots=True)
class ClockEstimate:
    """`remote = local + offset_ns`, within plus or minus `uncertainty_ns`."""

    offset_ns: int
    uncertainty_ns: int

    def to_remote(self, t_ns: int) -> int:
        """A local time on the other computer's clock."""
        return t_ns + self.offset_ns

    def to_local(self, t_ns: int) -> int:
        """The other computer's time on the local clock."""
        return t_ns - self.offset_ns


SAME_CLOCK = ClockEstimate(0, 0)  # CLOCK_MONOTONIC is one for all processes of a computer


class ClockSync:
    """Collects round trips. Not thread-safe: one thread adds, and publishes `estimate` to the others."""

    def __init__(self, window: int = WINDOW) -> None:
        self._trips: deque[tuple[int, int]] = deque(maxlen=window)  # (round trip, offset)

    def add(self, sent_ns: int, remote_ns: int, received_ns: int) -> None:
        """Take in one round trip; one that seems to have been answered before it was sent is ignored."""
        if received_ns >= sent_ns:
            self._trips.append((received_ns - sent_ns, remote_ns - (sent_ns + received_ns) // 2))

    @property
    def estimate(self) -> ClockEstimate | None:
        """From the quickest round trip in the window; None before the first."""
        if not self._trips:
            return None
        round_trip_ns, offset_ns = min(self._trips)
        return ClockEstimate(offset_ns, (round_trip_ns + 1) // 2)


def good_enough(estimate: ClockEstimate | None, limit_ns: int = ARM_LIMIT_NS) -> bool:
    """Whether actions may be timed with the estimate."""
    return estimate is not None and estimate.uncertainty_ns <= limit_ns


def check_arm(estimate: ClockEstimate | None, limit_ns: int = ARM_LIMIT_NS) -> ClockEstimate:
    """The estimate, if it is good enough to time actions with. Raises MemrtError otherwise."""
    if estimate is None or not good_enough(estimate, limit_ns):
        found = "no round trip yet" if estimate is None else f"{estimate.uncertainty_ns / NS_PER_MS:.1f} ms"
        raise MemrtError(
            "the robot's clock is not known well enough to arm",
            expected=f"an uncertainty of at most {limit_ns / NS_PER_MS:g} ms",
            found=found,
            fix="use a wired network to the robot's computer, or relieve the link",
        )
    return estimate
