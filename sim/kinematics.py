"""Differential inverse kinematics of the scripted expert: damped least squares with a posture task."""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from memrt.sim import fr3
from memrt.sim.scene import Scene

DAMPING = 0.02
POSTURE_GAIN = 0.05
_REGULARISER = DAMPING**2 * np.eye(6)

# The hand points straight down, fingers opening along the base's y axis.
_DOWN = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]])


class Kinematics:
    """Solves joint angles for a tool-centre point with the hand pointing down; keeps its own kinematic state."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._data = mujoco.MjData(scene.model)
        self._posture = np.array(fr3.HOME_Q)
        self._jacobian = np.zeros((6, scene.model.nv))

    def tcp(self, q: NDArray[np.float64]) -> NDArray[np.float64]:
        """Tool-centre point [m] for joint angles `q` float64 [7]."""
        self._forward(q)
        position: NDArray[np.float64] = self._data.site_xpos[self._scene.tcp].copy()
        return position

    def solve(self, q: NDArray[np.float64], target: NDArray[np.float64], iterations: int = 1) -> NDArray[np.float64]:
        """Joint angles float64 [7] near `q` whose tool-centre point is closest to `target` [m]."""
        q = q.copy()
        for _ in range(iterations):
            self._forward(q)
            data, scene = self._data, self._scene
            mujoco.mj_jacSite(scene.model, data, self._jacobian[:3], self._jacobian[3:], scene.tcp)
            jacobian = self._jacobian[:, scene.dq_index]
            rotation = data.site_xmat[scene.tcp].reshape(3, 3)
            error = np.concatenate([target - data.site_xpos[scene.tcp], _rotation_error(rotation)])
            posture = POSTURE_GAIN * (self._posture - q)
            gram = jacobian @ jacobian.T + _REGULARISER
            q += posture + jacobian.T @ np.linalg.solve(gram, error - jacobian @ posture)
        return np.clip(q, np.array(fr3.Q_MIN) + 0.05, np.array(fr3.Q_MAX) - 0.05)

    def _forward(self, q: NDArray[np.float64]) -> None:
        self._data.qpos[self._scene.q_index] = q
        mujoco.mj_kinematics(self._scene.model, self._data)
        mujoco.mj_comPos(self._scene.model, self._data)


def _rotation_error(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Small-angle rotation from the present orientation to hand-down, in the base frame."""
    step = _DOWN @ rotation.T
    return 0.5 * np.array([step[2, 1] - step[1, 2], step[0, 2] - step[2, 0], step[1, 0] - step[0, 1]])
