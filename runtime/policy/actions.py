"""A policy's own actions and the chunk's: units, gripper, deltas and the way a pose writes its rotation. Pure.

`chunk` is what the robot is sent, `own` is its inverse for what real-time chunking continues and for what a server
answers. Both are of whole chunks, since relative poses add up along one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memrt.runtime.actions_config import ActionsConfig, StateConfig
from memrt.runtime.kinematics import franka_with_hand, tcp_pose
from memrt.runtime.policy.preprocess import to_absolute, to_delta
from memrt.runtime.rotations import from_axis_angle, times, to_axis_angle, unit
from memrt.runtime.types import ARM_JOINTS, ActionSpace, FloatArray


class ActionLayout:
    """The two sections of a policy's YAML (or of a server's keys), bound to its delta mask."""

    def __init__(
        self, actions: ActionsConfig, state: StateConfig | None = None, delta_mask: Sequence[bool] | None = None
    ) -> None:
        """Without a mask all actions are absolute. The settings have been checked against each other."""
        self.actions, self._state_gripper = actions, (state or StateConfig()).gripper
        self._mask = tuple(delta_mask or (False,) * actions.dimensions)
        self._arm = franka_with_hand() if actions.relative else None

    @property
    def space(self) -> ActionSpace:
        """The chunks'."""
        return self.actions.action_space

    @property
    def dimensions(self) -> int:
        """How many numbers an action of the policy's own has."""
        return self.actions.dimensions

    def state(self, proprioception: FloatArray) -> FloatArray:
        """Proprioception float64 [8] with the gripper in the policy's units."""
        gripper = self._state_gripper.theirs(proprioception[ARM_JOINTS:])
        return np.concatenate([proprioception[:ARM_JOINTS], gripper])

    def chunk(self, own: FloatArray, proprioception: FloatArray) -> FloatArray:
        """Own actions [horizon, dimensions] → a chunk's, float64 [horizon, 8].

        `proprioception` float64 [8] is the observation's. The gripper is clipped here and nowhere else: an opening is
        0 to 1, and a network may overshoot it by a percent.
        """
        own = np.asarray(own, np.float64)
        if self.space is ActionSpace.JOINT_POSITION:
            own = to_absolute(own, self.state(proprioception), self._mask)
        gripper = self.actions.gripper.opening(own[:, -1]).clip(0.0, 1.0)
        return np.column_stack([self._arm_of(own[:, :-1], proprioception), gripper])

    def own(self, actions: FloatArray, proprioception: FloatArray) -> FloatArray:
        """The inverse: a chunk's actions [m, 8] → the policy's own, float64 [m, dimensions].

        Rotations between two rows need not be unit. Relative poses have no inverse: the first step begins where the
        arm is measured, not where the chunk before it ended.
        """
        if self.actions.relative:
            raise ValueError("relative poses cannot be made of absolute ones")
        arm, gripper = actions[:, :ARM_JOINTS], self.actions.gripper.theirs(actions[:, ARM_JOINTS])
        if self.space is ActionSpace.JOINT_VELOCITY:
            arm = arm / self.actions.factors
        elif self.space is ActionSpace.CARTESIAN_POSE:
            rotation = unit(arm[:, 3:])
            arm = np.column_stack([arm[:, :3], to_axis_angle(rotation) if self._writes_vectors else rotation])
        own = np.column_stack([arm, gripper])
        return to_delta(own, self.state(proprioception), self._mask) if any(self._mask) else own

    @property
    def _writes_vectors(self) -> bool:
        return self.actions.rotation == "axis_angle"

    def _arm_of(self, own: FloatArray, proprioception: FloatArray) -> FloatArray:
        """The arm's seven columns."""
        settings = self.actions
        if settings.scalable:
            own = (own if settings.clip is None else own.clip(-settings.clip, settings.clip)) * settings.factors
        if self.space is not ActionSpace.CARTESIAN_POSE:
            return own
        position, rotation = own[:, :3], own[:, 3:]
        quaternions = from_axis_angle(rotation) if self._writes_vectors else unit(rotation)
        if self._arm is None:
            return np.column_stack([position, quaternions])
        start = tcp_pose(self._arm, proprioception[:ARM_JOINTS])
        turned, turns = start[3:], []
        for step in quaternions:
            turned = times(step, turned)
            turns.append(turned)
        return np.column_stack([start[:3] + np.cumsum(position, axis=0), np.array(turns)])


def at_pace(actions: FloatArray, space: ActionSpace, pace: float) -> FloatArray:
    """A chunk's actions for the same path at `pace` times its pace: velocities change, targets stay."""
    if space is not ActionSpace.JOINT_VELOCITY:
        return actions
    changed = actions.copy()
    changed[:, :ARM_JOINTS] *= pace
    return changed
