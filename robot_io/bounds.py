"""What a chunk asks of the arm beyond what it may do: bent into bounds and counted, and refused once that goes on.

A target beyond a joint's range is clamped and a step that is too fast takes longer: the seam does both, to every chunk.
A chunk that leads out of the workspace is followed up to its last target inside. One such chunk is no reason to stop; a
policy that keeps asking for them is, so after ten in a row they are refused, which the loop answers with a hold.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from memrt.robot_io.action_spaces import RefusedChunkError
from memrt.robot_io.workspace import WorkspaceConfig, tool_point, tool_position
from memrt.runtime._core import Kinematics, SeamLimits
from memrt.runtime.clock import NS_PER_S
from memrt.runtime.types import ARM_JOINTS, FloatArray

if TYPE_CHECKING:
    from memrt.robot_io.config import RobotConfig

BENT_IN_A_ROW = 10  # four seconds of chunks that are computed every 0.4 s
SPEED_TOLERANCE = 1.05  # a step this much over the limit lags by a few milliseconds and catches up


class ArmBounds:
    """Judges one robot's chunks, in joint targets, in the order they come in."""

    def __init__(
        self,
        limits: SeamLimits,
        *,
        speed: float = 1.0,
        arm: Kinematics | None = None,
        workspace: WorkspaceConfig | None = None,
    ) -> None:
        """`limits` are the arm's own, without a margin: inside the margin nothing is wrong with a target."""
        self._q_min, self._q_max = limits.q_min, limits.q_max
        self._limits = limits
        self.set_speed(speed)
        self._arm = arm
        self._box = None if workspace is None else (np.array(workspace.min), np.array(workspace.max))
        self._bent = 0
        self.counts: Counter[str] = Counter()

    @classmethod
    def of(cls, robot: RobotConfig, speed: float) -> ArmBounds:
        """As the robot's YAML says."""
        return cls(robot.arm.limits(0.0), speed=speed, arm=tool_point(robot), workspace=robot.workspace)

    def set_speed(self, speed: float) -> None:
        """Another factor on the speed limits."""
        self._dq_max = self._limits.dq_max * (speed * SPEED_TOLERANCE)

    def begin(self) -> None:
        """The robot was armed or resumed: what was asked before is forgotten."""
        self._bent = 0

    def kept(self, targets: FloatArray, dt_ns: int, planned: FloatArray) -> FloatArray:
        """What of `targets` float64 [horizon, 8] may be followed; `planned` float64 [7] is where the arm is to be then.

        Raises RefusedChunkError when its first target lies outside the workspace, and for the eleventh chunk in a row
        that must be bent. Targets that are not finite are left to the seam, which refuses them.
        """
        joints = targets[:, :ARM_JOINTS]
        if not np.isfinite(joints).all():
            return targets
        troubles = [self._beyond_range(joints), self._too_fast(joints, dt_ns)]
        inside = self._inside(joints, planned)
        if inside < len(targets):
            self.counts["chunks that leave the workspace"] += 1
            troubles.append("it leads out of the workspace")
        trouble = next(filter(None, troubles), "")
        self._bent = self._bent + 1 if trouble else 0
        if inside == 0:
            raise RefusedChunkError("its first target lies outside the workspace")
        if self._bent > BENT_IN_A_ROW:
            raise RefusedChunkError(f"{trouble}, as {BENT_IN_A_ROW} chunks or more before it")
        return targets[:inside]

    def _beyond_range(self, joints: FloatArray) -> str:
        outside = np.flatnonzero(((joints < self._q_min) | (joints > self._q_max)).any(axis=0))
        if not len(outside):
            return ""
        self.counts["chunks beyond a joint's range"] += 1
        return f"it asks joint {outside[0] + 1} to leave its range"

    def _too_fast(self, joints: FloatArray, dt_ns: int) -> str:
        fast = np.flatnonzero((np.abs(np.diff(joints, axis=0)) > self._dq_max * (dt_ns / NS_PER_S)).any(axis=0))
        if not len(fast):
            return ""
        self.counts["chunks faster than the arm"] += 1
        return f"it asks joint {fast[0] + 1} to move faster than it can"

    def _inside(self, joints: FloatArray, planned: FloatArray) -> int:
        """How many targets, from the first on, keep the tool in the box. From outside it may come back, not go on."""
        if self._box is None or self._arm is None:
            return len(joints)
        here, *way = tool_position(self._arm, np.vstack([planned, joints]))
        low, high = np.minimum(self._box[0], here), np.maximum(self._box[1], here)
        outside = np.flatnonzero(((np.array(way) < low) | (np.array(way) > high)).any(axis=1))
        return int(outside[0]) if len(outside) else len(joints)
