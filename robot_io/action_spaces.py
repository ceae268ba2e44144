"""What a chunk's numbers mean, in joints: a chunk of any action space becomes joint targets before the driver sees it.

Nothing but joint targets reaches a seam, so limits, stops and takeovers are the same for all spaces. The conversion is
pure and runs in the node, where the plan is known that the chunk continues.

Velocities and poses begin at the *planned* joint angles, not at the measured ones. An arm lags its commands by tens of
milliseconds; a chunk that began at the measured angles would take the arm back by that lag at every takeover, and the
lag would be lost from every chunk's way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from memrt.runtime._core import Kinematics, SeamLimits
from memrt.runtime.clock import NS_PER_S
from memrt.runtime.kinematics import franka_with_hand
from memrt.runtime.types import ARM_JOINTS, PROPRIOCEPTION_DIM, ActionSpace, FloatArray

# Velocities above this share of the speed limits are scaled down, whole rows, so that directions stay. At the limit
# itself the arm could never catch up with a plan that it has fallen behind.
SPEED_SHARE = 0.95
POSITION_TOLERANCE = 1e-3  # a pose that is missed by more is out of reach [m]
ROTATION_TOLERANCE = 5e-3  # [rad]
UNIT_TOLERANCE = 1e-3  # how far a quaternion's length may be from 1: float32 and a resampling, no other unit
# Seven joints reach a pose in many ways. Left alone the elbow drifts over minutes; this share of its way home is gone
# in a second, as far as the poses allow.
HOMING_PER_S = 0.5

if TYPE_CHECKING:
    from memrt.robot_io.config import RobotConfig

Planned = Callable[[int], FloatArray]


class RefusedChunkError(ValueError):
    """Why a chunk cannot be followed; nothing of it is."""


class ActionSpaces:
    """Turns chunks into joint targets for one arm."""

    def __init__(
        self,
        limits: SeamLimits,
        *,
        speed: float = 1.0,
        arm: Kinematics | None = None,
        home: FloatArray | None = None,
    ) -> None:
        """`limits` and `speed` as the arm's seam has them. Without `arm` and `home`, float64 [7], poses are refused."""
        self._limits = limits
        self._q_min, self._q_max = limits.q_min, limits.q_max
        self.set_speed(speed)
        self._arm, self._home = arm, home

    @classmethod
    def of(cls, robot: RobotConfig, speed: float) -> ActionSpaces:
        """As the robot's YAML says. Poses need an arm that memrt knows, and as its tool the Franka Hand."""
        home = np.zeros(ARM_JOINTS)
        home[: robot.arm.count] = robot.home_pose
        arm = franka_with_hand() if robot.has_franka_hand and robot.arm.model is not None else None
        return cls(robot.arm.limits(), speed=speed, arm=arm, home=home)

    def set_speed(self, speed: float) -> None:
        """Another factor on the speed limits: the seam's must be the same, or the plan would run away from the arm."""
        self._dq_max = self._limits.dq_max * (speed * SPEED_SHARE)

    @property
    def known(self) -> tuple[ActionSpace, ...]:
        """The spaces that this arm can be commanded in."""
        joints = (ActionSpace.JOINT_POSITION, ActionSpace.JOINT_VELOCITY)
        return joints if self._arm is None or self._home is None else (*joints, ActionSpace.CARTESIAN_POSE)

    def targets(self, actions: FloatArray, space: ActionSpace, t0_ns: int, dt_ns: int, planned: Planned) -> FloatArray:
        """Joint targets [rad] and gripper openings float64 [horizon, 8] for the times of `actions`, of the same shape.

        `planned(t_ns)` says where the arm is to be at a time by what was sent before, float64 [7]. Raises
        RefusedChunkError for what is not finite, for a pose out of reach, a quaternion that is not one.
        """
        if space is ActionSpace.JOINT_POSITION:
            return actions
        if actions.ndim != 2 or actions.shape[1] != PROPRIOCEPTION_DIM:
            raise RefusedChunkError(f"shape {list(actions.shape)} instead of [horizon, {PROPRIOCEPTION_DIM}]")
        if not len(actions):
            raise RefusedChunkError("empty")
        if not np.isfinite(actions).all():
            raise RefusedChunkError("non-finite")
        # Action i ends its step at t0 + i dt, so the first step begins one before t0.
        start = planned(t0_ns - dt_ns)
        own = actions[:, :ARM_JOINTS]
        joints = (
            self._integrated(own, start, dt_ns / NS_PER_S)
            if space is ActionSpace.JOINT_VELOCITY
            else self._reached(own, start, dt_ns / NS_PER_S)
        )
        return np.column_stack([joints, actions[:, ARM_JOINTS]])

    def _integrated(self, velocities: FloatArray, start: FloatArray, dt_s: float) -> FloatArray:
        """Where steps of `velocities` [horizon, 7] in rad/s lead to, kept inside the joints' range step by step."""
        # A joint that starts outside its range may come back, but not go further out: as in the seam.
        low, high = np.minimum(self._q_min, start), np.maximum(self._q_max, start)
        excess = np.abs(velocities / self._dq_max).max(axis=1, keepdims=True)
        steps = velocities / np.maximum(excess, 1.0) * dt_s
        joints, q = np.empty_like(steps), start
        for i, step in enumerate(steps):
            q = np.minimum(np.maximum(q + step, low), high)
            joints[i] = q
        return joints

    def _reached(self, poses: FloatArray, start: FloatArray, dt_s: float) -> FloatArray:
        """Joint angles for poses [horizon, 7], each found from the one before it."""
        if self._arm is None or self._home is None:
            raise RefusedChunkError("poses of the tool, which this robot's kinematics are not known for")
        lengths = np.linalg.norm(poses[:, 3:], axis=1)
        if (wrong := np.flatnonzero(np.abs(lengths - 1.0) > UNIT_TOLERANCE)).size:
            raise RefusedChunkError(f"pose {wrong[0]} has a quaternion of length {lengths[wrong[0]]:.4g} instead of 1")
        unit = np.column_stack([poses[:, :3], poses[:, 3:] / lengths[:, None]])
        joints, errors = self._arm.follow(
            unit,
            start,
            self._q_min,
            self._q_max,
            self._home,
            min(1.0, HOMING_PER_S * dt_s),
            POSITION_TOLERANCE,
            ROTATION_TOLERANCE,
        )
        metres, radians = errors[-1]
        if not (metres <= POSITION_TOLERANCE and radians <= ROTATION_TOLERANCE):  # NaN: a pose beyond all numbers
            raise RefusedChunkError(
                f"pose {len(errors) - 1} is out of reach: {metres * 1e3:.1f} mm and {np.degrees(radians):.1f}° remain"
            )
        return joints
