"""The scripted expert: action chunks for the running step, as a function of the present state only.

It keeps nothing between calls, so that a policy without memory of its own motion can imitate it, and so that any
disturbed state (a missed grasp, a dropped cube, a push) has a correct continuation: recovery comes for free.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memrt.sim import fr3
from memrt.sim.env import CONTROL_DT_NS, TabletopEnv
from memrt.sim.kinematics import Kinematics
from memrt.sim.scene import CUBE_HALF
from memrt.sim.tasks.base import Step

HOVER = 0.14  # height of the fingertips for sideways motion [m]
GRASP_HEIGHT = 0.018
PLACE_HEIGHT = 0.024
BUTTON_HOVER = 0.11
BUTTON_PUSH = 0.030  # below the cap's travel, so that the press is certain [m]
CRUISE = 0.30  # fingertip speed [m/s]
SLOWING = 5.0  # speed falls linearly near the goal: v = SLOWING * distance [1/s]
MIN_SPEED = 0.04
FUNNEL_FLOOR = 0.006  # sideways error below which the hand may be all the way down [m]
FUNNEL_SLOPE = 4.0  # allowed height per metre of sideways error beyond the floor
ALIGNED = 0.010
NEAR = 0.008
OPEN, CLOSED = 1.0, 0.0
OPENED_ENOUGH = 0.92
HELD = (0.40, 0.56)  # gripper opening while it holds a cube: 0.5 is the cube's 4 cm
_DT = CONTROL_DT_NS * 1e-9
_GRIP_TRAVEL = fr3.HAND_SPEED / fr3.HAND_OPEN_WIDTH * _DT


@dataclass(slots=True)
class _State:
    """The kinematic state the expert plans on: fingertips, gripper, and whether a cube is between the fingers."""

    q: NDArray[np.float64]
    tcp: NDArray[np.float64]
    opening: float
    holding: bool


class Expert:
    """Plans on a kinematic copy of the arm. One instance per episode."""

    def __init__(self, env: TabletopEnv, horizon: int = 16) -> None:
        self._env = env
        self._horizon = horizon
        self._kinematics = Kinematics(env.scene)

    def chunk(self, step: Step) -> NDArray[np.float64]:
        """Absolute joint targets and gripper commands, float64 [horizon, 8], the first for one control step ahead."""
        env = self._env
        q, opening = env.proprioception()[:7], float(env.proprioception()[7])
        between = np.abs(env.scene.cube_position(step.colour) - env.scene.tcp_position())
        grasped = env.scene.pads_touching(step.colour) == 2 and between[2] < CUBE_HALF
        state = _State(q, self._kinematics.tcp(q), opening, grasped and opening < HELD[1])
        actions = np.empty((self._horizon, 8))
        for i in range(self._horizon):
            goal, grip = self._intent(step, state)
            self._advance(step, state, goal, grip)
            actions[i, :7], actions[i, 7] = state.q, grip
        return actions

    def _intent(self, step: Step, state: _State) -> tuple[NDArray[np.float64], float]:
        """Where the fingertips should go and what the gripper should do in this state."""
        if step.skill == "pick":
            return self._pick(step, state)
        if step.skill == "place":
            return self._place(state)
        return self._press(state)

    def _pick(self, step: Step, state: _State) -> tuple[NDArray[np.float64], float]:
        cube = self._env.scene.cube_position(step.colour)
        if state.holding:
            return np.array([*state.tcp[:2], HOVER]), CLOSED
        error = float(np.hypot(*(cube - state.tcp)[:2]))
        low = state.tcp[2] < GRASP_HEIGHT + NEAR
        if low and error < ALIGNED and state.opening > HELD[0]:
            return np.array([*cube[:2], GRASP_HEIGHT]), CLOSED
        if state.opening < OPENED_ENOUGH:
            return np.array([*state.tcp[:2], HOVER]), OPEN
        return self._funnel(state, cube[:2], GRASP_HEIGHT, HOVER), OPEN

    def _place(self, state: _State) -> tuple[NDArray[np.float64], float]:
        target = self._env.scene.target_position()
        error = float(np.hypot(*(target - state.tcp)[:2]))
        if state.holding and not (error < ALIGNED and state.tcp[2] < PLACE_HEIGHT + NEAR / 2):
            return self._funnel(state, target[:2], PLACE_HEIGHT, HOVER), CLOSED
        if state.opening < OPENED_ENOUGH and state.tcp[2] < PLACE_HEIGHT + CUBE_HALF:
            return state.tcp, OPEN
        return np.array([*state.tcp[:2], HOVER]), OPEN

    def _press(self, state: _State) -> tuple[NDArray[np.float64], float]:
        button = self._env.scene.button_position()
        return self._funnel(state, button[:2], BUTTON_PUSH, BUTTON_HOVER), CLOSED

    @staticmethod
    def _funnel(state: _State, xy: NDArray[np.float64], floor: float, hover: float) -> NDArray[np.float64]:
        """Approach `xy`; the closer the fingertips are sideways, the lower they may be."""
        error = float(np.hypot(*(xy - state.tcp[:2])))
        height = floor + FUNNEL_SLOPE * max(error - FUNNEL_FLOOR, 0.0)
        height = min(hover, height)
        if state.tcp[2] < height - 0.02:  # too low for this error: rise before moving sideways
            return np.array([*state.tcp[:2], height])
        return np.array([*xy, height])

    def _advance(self, step: Step, state: _State, goal: NDArray[np.float64], grip: float) -> None:
        """Move the kinematic copy one control step ahead."""
        delta = goal - state.tcp
        distance = float(np.linalg.norm(delta))
        stride = min(distance, _DT * min(CRUISE, max(MIN_SPEED, SLOWING * distance)))
        target = state.tcp + delta * (stride / distance) if distance > 1e-9 else goal
        state.q = self._kinematics.solve(state.q, target, iterations=2)
        state.tcp = target
        state.opening += float(np.clip(grip - state.opening, -_GRIP_TRAVEL, _GRIP_TRAVEL))
        if grip == OPEN:
            state.holding = False
        elif step.skill == "pick" and not state.holding and state.opening <= HELD[1] - 0.02:
            state.holding = state.tcp[2] < GRASP_HEIGHT + CUBE_HALF and self._around_cube(step, state)
        if state.holding:
            state.opening = max(state.opening, 2 * CUBE_HALF / fr3.HAND_OPEN_WIDTH)

    def _around_cube(self, step: Step, state: _State) -> bool:
        cube = self._env.scene.cube_position(step.colour)
        return bool(np.hypot(*(cube - state.tcp)[:2]) < CUBE_HALF)
