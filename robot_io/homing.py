"""The way home: one slow, smooth chunk, followed by the same seam as every other."""

from __future__ import annotations

import numpy as np

from memrt.runtime._core import SeamLimits
from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.types import FloatArray

SHARE = 0.4  # of each limit, at most; somebody may stand beside the arm
SHORTEST_S = 0.4
SHORTEST_STEP_NS, LONGEST_STEP_NS = NS_PER_MS, NS_PER_S  # between two actions, as the seam takes them
ACTIONS = 128  # the longest chunk that the seam takes
# Peaks of the minimum-jerk profile s(x) = 10x³ - 15x⁴ + 6x⁵ over unit time: speed, acceleration, jerk.
PEAK_SPEED, PEAK_ACCELERATION, PEAK_JERK = 1.875, 5.7735, 60.0


def way_home(start: FloatArray, home: FloatArray, limits: SeamLimits, speed: float) -> tuple[FloatArray, int]:
    """(actions float64 [128, 8], dt_ns) from `start` float64 [8] to `home` float64 [7] with the gripper open.

    Within 40 % of `limits`, slowed down by `speed` (0 to 1). At rest at both ends.
    """
    distance = np.abs(home - start[:-1])
    durations = (
        PEAK_SPEED * distance / (SHARE * limits.dq_max),
        np.sqrt(PEAK_ACCELERATION * distance / (SHARE * limits.ddq_max)),
        np.cbrt(PEAK_JERK * distance / (SHARE * limits.dddq_max)),
    )
    duration_s = max(SHORTEST_S, float(np.max(durations))) / speed
    share = np.arange(1, ACTIONS + 1)[:, None] / ACTIONS
    smooth = share**3 * (10 - 15 * share + 6 * share**2)
    joints = start[:-1] + smooth * (home - start[:-1])
    dt_ns = min(max(round(duration_s * NS_PER_S / ACTIONS), SHORTEST_STEP_NS), LONGEST_STEP_NS)
    return np.column_stack([joints, np.ones(ACTIONS)]), dt_ns
