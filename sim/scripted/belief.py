"""What a policy that sees nothing can know of an episode: where things stood at first, and what its own hand did.

A kinematic copy of the scene. A thing follows the fingertips from when they have closed around it until they open; a
button goes down under them. The episode is believed to begin when the arm does.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

from memrt.sim import fr3
from memrt.sim.env import CONTROL_DT_NS
from memrt.sim.expert import HELD
from memrt.sim.objects import BUTTON_TOP, BUTTON_TRAVEL, CUBE_HALF, Button, Container, Cube
from memrt.sim.scene import Scene
from memrt.sim.tasks import make_task
from memrt.sim.tasks.base import EPISODE_CAP, LIFTED

FINGERTIPS_BELOW = 0.009  # how far the fingers reach beyond the point between them [m]
MOVED = 0.005  # a joint that has turned by more was not at rest [rad]


class BelievedScene(Scene):
    """A scene in which the pads touch what is believed to be held. Nothing in it moves by itself."""

    held: str = ""

    def pads_touching(self, name: str) -> int:
        """Both pads, or none."""
        return 2 if name == self.held else 0


class Belief:
    """Task and scene as the scripted expert asks for them, kept up to date by proprioception alone."""

    def __init__(self, task: str, seed: int) -> None:
        self.task = make_task(task, seed)
        self.scene = BelievedScene(self.task.layout)
        self._proprioception = np.zeros(8)
        self._taken_from = np.zeros(3)
        self._start: NDArray[np.float64] | None = None
        self._begun_ns: int | None = None
        mujoco.mj_forward(self.scene.model, self.scene.data)
        self.task.begin(self.scene)

    def proprioception(self) -> NDArray[np.float64]:
        """What was measured last: joints [rad] and gripper opening, float64 [8]."""
        return self._proprioception.copy()

    def update(self, proprioception: NDArray[np.float64], t_ns: int) -> None:
        """Believe what follows from a measurement at `t_ns`, and let the task look at it for the time that passed."""
        self._proprioception = proprioception
        scene, data = self.scene, self.scene.data
        data.qpos[scene.q_index] = proprioception[:7]
        data.qpos[scene.finger_index] = proprioception[7] * fr3.HAND_OPEN_WIDTH / 2
        mujoco.mj_kinematics(scene.model, data)
        if scene.held:
            self._follow()
        else:
            self._grasp()
        self._press()
        for _ in range(min(self._steps(t_ns) - self.task.control_steps, EPISODE_CAP)):
            self.task.update(scene)

    def _steps(self, t_ns: int) -> int:
        """Control steps since the last measurement of the arm at its start, or since the first one."""
        joints = self._proprioception[:7]
        if self._start is None:
            self._start = joints
        if self._begun_ns is None or (self.task.control_steps == 0 and np.abs(joints - self._start).max() < MOVED):
            self._begun_ns = t_ns
        return round((t_ns - self._begun_ns) / CONTROL_DT_NS)

    def _press(self) -> None:
        tip = self.scene.tcp_position() - [0.0, 0.0, FINGERTIPS_BELOW]
        for button in self.scene.layout.of(Button):
            over = np.hypot(tip[0] - button.at.x, tip[1] - button.at.y) < CUBE_HALF
            travel = np.clip(BUTTON_TOP - tip[2], 0.0, BUTTON_TRAVEL) if over else 0.0
            self.scene.data.joint(button.name).qpos[0] = travel

    def _grasp(self) -> None:
        tcp = self.scene.tcp_position()
        for thing in self._movable():
            away = self.scene.position(thing.name) + np.array([0.0, 0.0, thing.grip_above]) - tcp
            if self._closed_around(thing) == 0 and np.hypot(*away[:2]) < CUBE_HALF and abs(away[2]) < CUBE_HALF:
                self.scene.held = thing.name
                self._taken_from = self.scene.position(thing.name)

    def _follow(self) -> None:
        thing = self.scene.layout[self.scene.held]
        assert isinstance(thing, Cube | Container), "only these are grasped"
        tcp = self.scene.tcp_position()
        closed = self._closed_around(thing)
        place = np.array([*tcp[:2], thing.height])
        if closed == 0:
            place[2] = max(thing.height, tcp[2] - thing.grip_above)
        else:
            self.scene.held = ""
            if closed < 0 and tcp[2] < self._taken_from[2] + LIFTED:  # closed on nothing: it never was between them
                place = self._taken_from
        self.scene.put(thing.name, place)

    def _closed_around(self, thing: Cube | Container) -> int:
        """0 when the fingers are as far apart as the thing is wide, 1 when farther, -1 when closer."""
        beyond = float(self._proprioception[7]) - thing.grasp_width / fr3.HAND_OPEN_WIDTH
        return int(beyond > HELD[1]) - int(beyond < HELD[0])

    def _movable(self) -> list[Cube | Container]:
        return [thing for thing in self.scene.layout.objects if isinstance(thing, Cube | Container)]
