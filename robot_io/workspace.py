"""The box that a robot's tool must stay in, as its YAML states it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from memrt.runtime._core import Kinematics
from memrt.runtime.kinematics import franka_flange, franka_with_hand
from memrt.runtime.strict_config import FieldError
from memrt.runtime.types import ARM_JOINTS, FloatArray

if TYPE_CHECKING:
    from memrt.robot_io.config import RobotConfig

Corner = tuple[float, float, float]


class WorkspaceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Two opposite corners of the box [m], in the frame of the arm's base: x forward, z up."""

    min: Corner
    max: Corner

    def __post_init__(self) -> None:
        for axis, low, high in zip("xyz", self.min, self.max, strict=True):
            if not low < high:
                raise FieldError(
                    "max", expected=f"more than {low:g} in {axis}", found=f"{high:g}", fix="correct the corners"
                )


def tool_point(robot: RobotConfig) -> Kinematics | None:
    """The kinematics of what must stay in the box: between the Franka Hand's fingertips, else the flange.

    None for an arm that memrt does not know.
    """
    if robot.arm.model is None:
        return None
    return franka_with_hand() if robot.has_franka_hand else franka_flange()


def check_workspace(robot: RobotConfig) -> None:
    """Raises FieldError for a workspace that cannot be watched, and for one that the home pose lies outside of."""
    box, arm = robot.workspace, tool_point(robot)
    if box is None:
        return
    if arm is None:
        raise FieldError(
            "workspace",
            expected="an arm whose kinematics memrt knows: `arm: {model: fr3}` or `panda`",
            found="an arm of your own",
            fix="remove `workspace`, and let your driver refuse what it must",
        )
    home = np.array(robot.home_pose, dtype=np.float64)
    x, y, z = tool_position(arm, home[None, :ARM_JOINTS])[0]
    if not all(low <= at <= high for low, at, high in zip(box.min, (x, y, z), box.max, strict=True)):
        raise FieldError(
            "workspace",
            expected="a box that the home pose lies in",
            found=f"a home at ({x:.3f}, {y:.3f}, {z:.3f}) m, outside it",
            fix="enlarge the box, or choose another `home`",
        )


def tool_position(arm: Kinematics, joints: FloatArray) -> FloatArray:
    """Where the tool is [n, 3] in m, for joint angles [n, 7] in rad."""
    positions: FloatArray = arm.forward(np.ascontiguousarray(joints))[:, :3]
    return positions
