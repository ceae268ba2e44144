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
from memrt.sim.objects import CUBE_HALF, Container, Cube
from memrt.sim.tasks.base import Step

HOVER = 0.14  # height of the fingertips for sideways motion [m]
PLACE_HEIGHT = 0.024
RELEASE_ABOVE = 0.006  # how far above its grasp height a thing is let go that is put down where it is [m]
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
HELD = (-0.10, 0.06)  # gripper opening while it holds something, from the thing's width
_DT = CONTROL_DT_NS * 1e-9
_GRIP_TRAVEL = fr3.HAND_SPEED / fr3.HAND_OPEN_WIDTH * _DT

_Intent = tuple[NDArray[np.float64], float]  # where the fingertips should go [m], and the gripper's command


@dataclass(slots=True)
class _State:
    """The kinematic state the expert plans on: fingertips, gripper, and whether something is between the fingers."""

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
        self._skills = {
            "pick": self._pick,
            "place": self._place,
            "drop": self._drop,
            "carry": self._carry,
            "put": self._put,
            "hover": self._hover,
            "wait": self._hover,
            "press": self._press,
        }

    def chunk(self, step: Step) -> NDArray[np.float64]:
        """Absolute joint targets and gripper commands, float64 [horizon, 8], the first for one control step ahead."""
        q, opening = self._env.proprioception()[:7], float(self._env.proprioception()[7])
        state = _State(q, self._kinematics.tcp(q), opening, self._holds(step, opening))
        actions = np.empty((self._horizon, 8))
        for i in range(self._horizon):
            goal, grip = self._skills[step.skill](step, state)
            self._advance(step, state, goal, grip)
            actions[i, :7], actions[i, 7] = state.q, grip
        return actions

    def _holds(self, step: Step, opening: float) -> bool:
        scene = self._env.scene
        thing = scene.layout[step.thing]
        if not isinstance(thing, Cube | Container):
            return False
        between = scene.position(step.thing)[2] + thing.grip_above - scene.tcp_position()[2]
        grasped = scene.pads_touching(step.thing) == 2 and abs(between) < CUBE_HALF
        return grasped and opening < thing.grasp_width / fr3.HAND_OPEN_WIDTH + HELD[1]

    def _pick(self, step: Step, state: _State) -> _Intent:
        thing = self._graspable(step)
        where = self._env.scene.position(step.thing)
        if state.holding:
            return np.array([*state.tcp[:2], HOVER]), CLOSED
        error = float(np.hypot(*(where - state.tcp)[:2]))
        low = state.tcp[2] < thing.grasp_height + NEAR
        if low and error < ALIGNED and state.opening > thing.grasp_width / fr3.HAND_OPEN_WIDTH + HELD[0]:
            return np.array([*where[:2], thing.grasp_height]), CLOSED
        if state.opening < OPENED_ENOUGH:
            return np.array([*state.tcp[:2], HOVER]), OPEN
        return self._funnel(state, where[:2], thing.grasp_height, HOVER), OPEN

    def _place(self, step: Step, state: _State) -> _Intent:
        return self._release_at(state, self._env.scene.position(step.to)[:2], PLACE_HEIGHT, PLACE_HEIGHT + CUBE_HALF)

    def _put(self, step: Step, state: _State) -> _Intent:
        height = self._graspable(step).grasp_height + RELEASE_ABOVE
        xy = self._env.scene.position(step.to)[:2] if step.to else state.tcp[:2]
        return self._release_at(state, xy, height, height + CUBE_HALF)

    def _release_at(self, state: _State, xy: NDArray[np.float64], height: float, below: float) -> _Intent:
        error = float(np.hypot(*(xy - state.tcp[:2])))
        if state.holding and not (error < ALIGNED and state.tcp[2] < height + NEAR / 2):
            return self._funnel(state, xy, height, HOVER), CLOSED
        if state.opening < OPENED_ENOUGH and state.tcp[2] < below:
            return state.tcp, OPEN
        return np.array([*state.tcp[:2], HOVER]), OPEN

    def _drop(self, step: Step, state: _State) -> _Intent:
        xy = self._env.scene.position(step.to)[:2]
        error = float(np.hypot(*(xy - state.tcp[:2])))
        if state.holding and error > ALIGNED:
            return self._funnel(state, xy, HOVER, HOVER), CLOSED
        return np.array([*state.tcp[:2], HOVER]), OPEN

    def _carry(self, step: Step, state: _State) -> _Intent:
        return self._funnel(state, self._env.scene.position(step.to)[:2], HOVER, HOVER), CLOSED

    def _hover(self, step: Step, state: _State) -> _Intent:
        return self._funnel(state, self._env.scene.position(step.thing)[:2], BUTTON_HOVER, BUTTON_HOVER), CLOSED

    def _press(self, step: Step, state: _State) -> _Intent:
        return self._funnel(state, self._env.scene.position(step.thing)[:2], BUTTON_PUSH, BUTTON_HOVER), CLOSED

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
        elif step.skill == "pick":
            thing = self._graspable(step)
            width = thing.grasp_width / fr3.HAND_OPEN_WIDTH
            if not state.holding and state.opening <= width + HELD[1] - 0.02:
                state.holding = state.tcp[2] < thing.grasp_height + CUBE_HALF and self._around(step, state)
        if state.holding:
            state.opening = max(state.opening, self._graspable(step).grasp_width / fr3.HAND_OPEN_WIDTH)

    def _graspable(self, step: Step) -> Cube | Container:
        thing = self._env.scene.layout[step.thing]
        assert isinstance(thing, Cube | Container), f"{step.skill} {step.thing}"
        return thing

    def _around(self, step: Step, state: _State) -> bool:
        return bool(np.hypot(*(self._env.scene.position(step.thing) - state.tcp)[:2]) < CUBE_HALF)
