"""What the numbers of a policy's state and actions mean: the `state` and `actions` sections of a policy's YAML.

The same words describe another's policy server (`configs/protocols/*.yaml`).
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

from memrt.runtime.strict_config import FieldError, Positive
from memrt.runtime.types import ARM_JOINTS, PROPRIOCEPTION_DIM, ActionSpace, FloatArray

SpaceName = Literal["joint_position", "joint_velocity", "cartesian_pose"]
SPACE_NAMES: dict[ActionSpace, SpaceName] = {
    ActionSpace.JOINT_POSITION: "joint_position",
    ActionSpace.JOINT_VELOCITY: "joint_velocity",
    ActionSpace.CARTESIAN_POSE: "cartesian_pose",
}
ROTATION_DIM = {"axis_angle": 3, "quaternion": 4}


class GripperRange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the other side calls a closed and an open gripper. Ours is 0 and 1."""

    closed: float = 0.0
    open: float = 1.0

    def __post_init__(self) -> None:
        if self.closed == self.open:
            raise FieldError("open", expected="another value than `closed`", found=self.open, fix="correct one of them")

    def opening(self, value: FloatArray) -> FloatArray:
        """Theirs → 0 (closed) … 1 (open); exact for their 0 … 1."""
        opening: FloatArray = (value - self.closed) / (self.open - self.closed)
        return opening

    def theirs(self, opening: FloatArray) -> FloatArray:
        """0 (closed) … 1 (open) → theirs; exact for their 0 … 1."""
        value: FloatArray = self.closed + opening * (self.open - self.closed)
        return value


class StateConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Proprioception as the policy was trained on it: seven joints [rad], then the gripper in these units."""

    gripper: GripperRange = GripperRange()


class ActionsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Actions as the policy gives them, after normalisation is undone; the last one is always the gripper.

    `space` is the chunk's (`runtime.types.ActionSpace`). Numbers that are not in rad/s, or steps that are not in m and
    rad, become so by `clip` (to ±clip, as the environment they were trained in did) and then `scale` (one factor, or
    one per dimension of the arm). `rotation` is how a pose writes its rotation: `axis_angle` (three numbers [rad]) or
    `quaternion` (w, x, y, z). `relative`: an action is the motion of its own step, translation and rotation in the
    frame of the base, the first from where the arm is measured (LIBERO's).
    """

    space: SpaceName = "joint_position"
    scale: float | tuple[float, ...] = 1.0
    clip: Positive | None = None
    rotation: Literal["axis_angle", "quaternion"] = "axis_angle"
    relative: bool = False
    gripper: GripperRange = GripperRange()

    def __post_init__(self) -> None:
        if self.relative and (self.space != "cartesian_pose" or self.rotation != "axis_angle"):
            raise FieldError(
                "relative",
                expected="false, except for a `cartesian_pose` whose `rotation` is `axis_angle`",
                found="true",
                fix="remove it; joint positions are made relative by `delta_mask`",
            )
        scales = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        if len(scales) not in (1, self.dimensions - 1) or not all(0 < abs(s) < float("inf") for s in scales):
            raise FieldError(
                "scale",
                expected=f"a factor other than 0, or {self.dimensions - 1} of them",
                found=self.scale,
                fix="give one factor, or one per dimension of the arm",
            )
        if not self.scalable and (any(s != 1.0 for s in scales) or self.clip is not None):
            raise FieldError(
                "scale" if self.clip is None else "clip",
                expected="none for joint positions and absolute poses: they are in rad and m",
                found=self.scale if self.clip is None else self.clip,
                fix="remove it, or name the space that these numbers are in",
            )

    @property
    def scalable(self) -> bool:
        """Whether the numbers are motions, which may have a unit of their own."""
        return self.space == "joint_velocity" or self.relative

    @property
    def action_space(self) -> ActionSpace:
        """The space of the chunks."""
        return ActionSpace[self.space.upper()]

    @property
    def dimensions(self) -> int:
        """How many numbers one action has."""
        return 3 + ROTATION_DIM[self.rotation] + 1 if self.space == "cartesian_pose" else PROPRIOCEPTION_DIM

    @property
    def factors(self) -> FloatArray:
        """`scale`, a factor per dimension of the arm, float64."""
        return np.broadcast_to(np.asarray(self.scale, np.float64), self.dimensions - 1)


def check_delta_mask(mask: tuple[bool, ...], actions: ActionsConfig, state: StateConfig) -> None:
    """Raises FieldError unless the mask fits the actions: one entry each, and true for none but positions."""
    if len(mask) != actions.dimensions:
        meaning = "7 joints, gripper" if actions.space != "cartesian_pose" else f"3, {actions.rotation}, gripper"
        raise FieldError(
            "delta_mask",
            expected=f"{actions.dimensions} entries ({meaning})",
            found=f"{len(mask)}{', as of two arms' if len(mask) == 2 * ARM_JOINTS else ''}",
            fix="give one entry per action dimension; memrt drives one arm",
        )
    if any(mask) and actions.space != "joint_position":
        raise FieldError(
            "delta_mask",
            expected=f"false throughout with `actions.space: {actions.space}`",
            found=list(mask),
            fix="only joint positions are relative to the state; steps of a pose are `actions.relative`",
        )
    if mask[-1] and actions.gripper != state.gripper:
        raise FieldError(
            "delta_mask",
            expected="an absolute gripper where `actions.gripper` and `state.gripper` differ",
            found="true for the gripper",
            fix="make the last entry false, or the two ranges equal",
        )
