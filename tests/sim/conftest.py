"""A puppet for the tasks' rules."""

import memrt.sim  # noqa: F401, I001  has pictures drawn in software: before mujoco is imported
import mujoco
import numpy as np
import pytest

from memrt.sim.objects import BUTTON_PRESSED
from memrt.sim.scene import Scene
from memrt.sim.tasks import make_task


class Puppet:
    """A task whose objects and hand are moved by hand, so that single rules can be tried."""

    def __init__(self, name: str, seed: int = 3, difficulty: str = "medium") -> None:
        self.task = make_task(name, seed, difficulty)
        self.scene = Scene(self.task.layout)
        self.scene.data.qpos[self.scene.finger_index] = 0.04
        mujoco.mj_forward(self.scene.model, self.scene.data)
        self.task.begin(self.scene)
        self.held: str | None = None
        self.hand = np.array([0.5, 0.0, 0.2])
        self.scene.pads_touching = lambda name: 2 if name == self.held else 0
        self.scene.tcp_position = self.hand.copy  # a method of the one array: `hand` is changed in place

    @property
    def status(self) -> str:
        return self.task.outcome.status

    @property
    def reason(self) -> str:
        return self.task.outcome.reason

    def wait(self, steps: int = 1) -> None:
        for _ in range(steps):
            self.task.update(self.scene)

    def move(self, name: str, position) -> None:
        """Let the task see an object at `position` [m]."""
        self.scene.put(name, position)
        self.wait()

    def lift(self, name: str, over=None) -> None:
        """Hold an object in the air, where it was or above `over`."""
        self.held = name
        x, y = (self.scene.position(name) if over is None else np.asarray(over))[:2]
        self.move(name, [x, y, 0.12 + self.task.layout[name].height])

    def rest(self, name: str, at=None) -> None:
        """Let an object go so that it rests on the table, where it was or at `at`."""
        self.held = None
        x, y = (self.scene.position(name) if at is None else np.asarray(at))[:2]
        self.move(name, [x, y, self.task.layout[name].height])

    def press(self, button: str = "button") -> None:
        """Push a button down and let it come up again."""
        joint = self.scene.data.joint(button)
        joint.qpos[0] = BUTTON_PRESSED + 0.001
        self.wait()
        joint.qpos[0] = 0.0
        self.wait()


@pytest.fixture
def puppet():
    """Makes a puppet of a task: `puppet("PickXtimes", seed=3, difficulty="hard")`."""
    return Puppet
