"""The protocol of a profile: what happens before anything counts, and in which order what is compared is measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

ON, OFF = "high level on", "high level off"
ORDER = (ON, OFF, ON, OFF)  # alternating, so that a drift of the computer (heat, other load) hits both alike
MIN_REST = 0.05  # of a window: no new episode is begun for less than this share


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileProtocol:
    """One window is `seconds` of measurement. `ORDER` says which condition each of the four windows has.

    A window consists of one episode, or of several where the task ends earlier. Before each, both policies are called
    `warm_up_calls` times on the robot's first observation, and the first `settle_s` seconds of the run do not count:
    caches are filled and the computer's clocks have risen by then.
    """

    seconds: float
    warm_up_calls: int = 10
    settle_s: float = 2.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, in words where a figure alone would not say it."""
        return {
            **asdict(self),
            "order": list(ORDER),
            "windows": len(ORDER),
            "off": "the low level alone: the subgoal stays the first one that the high level named",
            "episode_end": "the next episode begins with the next seed; warm-up and settling are repeated, not counted",
            "percentiles": "of all calls of a window; each within 0.4 %, the largest exact",
            "noise": "the larger of the two conditions' differences between their two repetitions",
        }
