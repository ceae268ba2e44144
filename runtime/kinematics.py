"""Kinematics of the Franka arms (FR3 and Panda share them) with the Franka Hand; the arithmetic is `_core.Kinematics`.

The manufacturer's published modified Denavit–Hartenberg table:
https://frankaemika.github.io/docs/control_parameters.html#denavithartenberg-parameters
"""

from __future__ import annotations

from math import pi, sqrt

import numpy as np

from memrt.runtime._core import Kinematics
from memrt.runtime.types import FloatArray

# (a [m], d [m], alpha [rad]) of joints 1 to 7, each frame from the one before it.
FRANKA_DH = (
    (0.0, 0.333, 0.0),
    (0.0, 0.0, -pi / 2),
    (0.0, 0.316, pi / 2),
    (0.0825, 0.0, pi / 2),
    (-0.0825, 0.384, -pi / 2),
    (0.0, 0.0, pi / 2),
    (0.088, 0.0, pi / 2),
)
FLANGE_D = 0.107  # from joint 7 along its axis [m]
HAND_TURN = -pi / 4  # the hand is mounted turned about the flange's axis [rad]
HAND_TCP_D = 0.1034  # from the flange to between the fingertips: libfranka's end-effector frame of the Franka Hand [m]


def franka_with_hand() -> Kinematics:
    """An FR3 or a Panda whose tool centre point is the Franka Hand's: the pose that libfranka calls O_T_EE."""
    c, s = sqrt(0.5), -sqrt(0.5)
    tool = np.array([[c, -s, 0.0, 0.0], [s, c, 0.0, 0.0], [0.0, 0.0, 1.0, FLANGE_D + HAND_TCP_D]])
    return Kinematics(np.array(FRANKA_DH), tool)


def franka_flange() -> Kinematics:
    """An FR3 or a Panda up to its flange, whatever is mounted there."""
    return Kinematics(np.array(FRANKA_DH), np.eye(3, 4) + np.array([[0.0] * 4, [0.0] * 4, [0.0, 0.0, 0.0, FLANGE_D]]))


def tcp_pose(arm: Kinematics, q: FloatArray) -> FloatArray:
    """Position [m] and unit quaternion (w, x, y, z) float64 [7] for joint angles float64 [7]."""
    pose: FloatArray = arm.forward(q[None, :])[0]
    return pose
