"""The task's rules, decided from physics: what counts, what fails, what is forgiven."""

import mujoco
import numpy as np
import pytest

from memrt.runtime.errors import MemrtError
from memrt.sim.objects import BUTTON_PRESSED, CUBE_HALF, Cube
from memrt.sim.scene import Scene
from memrt.sim.tasks import make_task
from memrt.sim.tasks.base import EPISODE_CAP, Step
from memrt.sim.tasks.layout import SPACING
from memrt.sim.tasks.pick_x_times import PickXtimes


class Puppet:
    """A scene whose cubes and hand are moved by hand, so that single rules can be tried."""

    def __init__(self, seed: int = 3, difficulty: str = "medium") -> None:
        self.task = PickXtimes(seed, difficulty)
        self.scene = Scene(self.task.layout)
        self.scene.data.qpos[self.scene.finger_index] = 0.04
        mujoco.mj_forward(self.scene.model, self.scene.data)
        self.held: str | None = None
        self.hand_height = 0.2
        self.scene.pads_touching = lambda name: 2 if name == self.held else 0
        self.scene.tcp_position = lambda: np.array([0.5, 0.0, self.hand_height])

    def put(self, cube: str, xy: np.ndarray, z: float) -> None:
        self.scene.data.joint(cube).qpos[:3] = [*xy[:2], z]
        mujoco.mj_forward(self.scene.model, self.scene.data)
        self.task.update(self.scene)

    def pick(self, cube: str | None = None) -> None:
        self.held = cube or self.task.cube
        self.put(self.held, self.scene.position(self.held), 0.12)

    def place(self, at: np.ndarray | None = None) -> None:
        self.held = None
        self.put(self.task.cube, self.scene.position("target") if at is None else at, CUBE_HALF)

    def press(self) -> None:
        self.scene.data.joint("button").qpos[0] = BUTTON_PRESSED + 0.001
        self.task.update(self.scene)


def test_the_stated_number_of_places_then_the_button_succeeds():
    puppet = Puppet()
    for _ in range(puppet.task.repetitions):
        puppet.pick()
        puppet.place()
    puppet.press()
    assert puppet.task.outcome.status == "success"


@pytest.mark.parametrize("placed", [0, 1])
def test_pressing_early_fails(placed):
    puppet = Puppet(difficulty="hard")
    for _ in range(placed):
        puppet.pick()
        puppet.place()
    puppet.press()
    assert puppet.task.outcome.status == "failure"
    assert f"after {placed} of" in puppet.task.outcome.reason


def test_one_pick_too_many_fails():
    puppet = Puppet()
    for _ in range(puppet.task.repetitions):
        puppet.pick()
        puppet.place()
    puppet.pick()
    assert puppet.task.outcome.status == "failure"
    assert "more than" in puppet.task.outcome.reason


def test_another_cube_fails():
    puppet = Puppet()
    other = next(cube for cube in puppet.task.layout.of(Cube) if cube.name != puppet.task.cube)
    puppet.pick(other.name)
    assert puppet.task.outcome.status == "failure"
    assert other.words in puppet.task.outcome.reason


def test_a_dropped_cube_is_due_again_with_the_same_ordinal():
    puppet = Puppet()
    before = puppet.task.step
    puppet.pick()
    assert puppet.task.step.skill == "place"
    away = puppet.scene.position("target") + np.array([0.12, 0.0, 0.0])
    puppet.place(away)
    assert puppet.task.step == before
    assert puppet.task.outcome.status == "running"


def test_a_place_is_over_only_when_the_hand_has_left():
    puppet = Puppet()
    puppet.pick()
    puppet.hand_height = 0.03
    puppet.place()
    assert puppet.task.step.skill == "place"
    puppet.hand_height = 0.2
    puppet.task.update(puppet.scene)
    assert puppet.task.places == 1


def test_the_cap_ends_an_episode():
    puppet = Puppet()
    for _ in range(EPISODE_CAP):
        puppet.task.update(puppet.scene)
    assert puppet.task.outcome.status == "failure"
    assert str(EPISODE_CAP) in puppet.task.outcome.reason


def test_wording_follows_the_benchmark():
    puppet = Puppet(difficulty="hard")
    colour = puppet.task.colour
    row, col = puppet.scene.pixel(puppet.scene.position(puppet.task.cube))
    assert puppet.task.subgoal(puppet.scene, "simple") == f"pick up the {colour} cube for the first time"
    assert (
        puppet.task.subgoal(puppet.scene, "grounded") == f"pick up the {colour} cube <{row}, {col}> for the first time"
    )
    assert puppet.task.goal.startswith(f"pick up the {colour} cube and place it on the target, repeating this action")
    assert puppet.task.goal.endswith("times, then press the button to stop")


def test_pixels_are_fixed_when_a_step_begins_unless_the_cube_is_pushed():
    puppet = Puppet()
    first = puppet.task.subgoal(puppet.scene, "grounded")
    puppet.put(puppet.task.cube, puppet.scene.position(puppet.task.cube) + np.array([0.004, 0, 0]), CUBE_HALF)
    assert puppet.task.subgoal(puppet.scene, "grounded") == first
    puppet.put(puppet.task.cube, puppet.scene.position(puppet.task.cube) + np.array([0.05, 0, 0]), CUBE_HALF)
    assert puppet.task.subgoal(puppet.scene, "grounded") != first


def test_layouts_keep_their_distance_and_cover_the_difficulties():
    for seed in range(60):
        task = make_task("PickXtimes", seed)
        places = [thing.at for thing in task.layout.objects]
        for i, a in enumerate(places):
            assert all(np.hypot(a.x - b.x, a.y - b.y) >= SPACING for b in places[:i])
        low, high = {"easy": (1, 3), "medium": (1, 3), "hard": (4, 5)}[task.difficulty]
        assert low <= task.repetitions <= high
        assert task.step == Step("pick", task.cube, 1)
    assert {make_task("PickXtimes", s).repetitions for s in range(60)} == {1, 2, 3, 4, 5}


def test_an_unknown_task_is_refused_with_the_known_ones():
    with pytest.raises(MemrtError, match="PickXtimes"):
        make_task("PickYtimes", 0)
