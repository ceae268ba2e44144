"""The task's rules, decided from physics: what counts, what fails, what is forgiven."""

import numpy as np
import pytest

from memrt.runtime.errors import MemrtError
from memrt.sim.objects import Cube
from memrt.sim.tasks import make_task
from memrt.sim.tasks.base import EPISODE_CAP, Step
from memrt.sim.tasks.layout import SPACING


@pytest.fixture
def medium(puppet):
    return puppet("PickXtimes", difficulty="medium")


@pytest.fixture
def hard(puppet):
    return puppet("PickXtimes", difficulty="hard")


def target(puppet) -> np.ndarray:
    return puppet.scene.position("target")


def pick_and_place(puppet, times: int) -> None:
    for _ in range(times):
        puppet.lift(puppet.task.cube)
        puppet.rest(puppet.task.cube, target(puppet))


def test_the_stated_number_of_places_then_the_button_succeeds(medium):
    pick_and_place(medium, medium.task.repetitions)
    medium.press()
    assert medium.status == "success"


@pytest.mark.parametrize("placed", [0, 1])
def test_pressing_early_fails(hard, placed):
    pick_and_place(hard, placed)
    hard.press()
    assert hard.status == "failure"
    assert f"after {placed} of" in hard.reason


def test_one_pick_too_many_fails(medium):
    pick_and_place(medium, medium.task.repetitions)
    medium.lift(medium.task.cube)
    assert medium.status == "failure"
    assert "more than" in medium.reason


def test_another_cube_fails(medium):
    other = next(cube for cube in medium.task.layout.of(Cube) if cube.name != medium.task.cube)
    medium.lift(other.name)
    assert medium.status == "failure"
    assert other.words in medium.reason


def test_a_dropped_cube_is_due_again_with_the_same_ordinal(medium):
    before = medium.task.step
    medium.lift(medium.task.cube)
    assert medium.task.step.skill == "place"
    medium.rest(medium.task.cube, target(medium) + np.array([0.12, 0.0, 0.0]))
    assert medium.task.step == before
    assert medium.status == "running"


def test_a_place_is_over_only_when_the_hand_has_left(medium):
    medium.lift(medium.task.cube)
    medium.hand[2] = 0.03
    medium.rest(medium.task.cube, target(medium))
    assert medium.task.step.skill == "place"
    medium.hand[2] = 0.2
    medium.wait()
    assert medium.task.places == 1


def test_the_cap_ends_an_episode(medium):
    medium.wait(EPISODE_CAP)
    assert medium.status == "failure"
    assert str(EPISODE_CAP) in medium.reason


def test_wording_follows_the_benchmark(hard):
    task, colour = hard.task, hard.task.colour
    row, col = hard.scene.pixel(hard.scene.position(task.cube))
    assert task.subgoal(hard.scene, "simple") == f"pick up the {colour} cube for the first time"
    assert task.subgoal(hard.scene, "grounded") == f"pick up the {colour} cube <{row}, {col}> for the first time"
    assert task.goal.startswith(f"pick up the {colour} cube and place it on the target, repeating this action")
    assert task.goal.endswith("times, then press the button to stop")


def test_pixels_are_fixed_when_a_step_begins_unless_the_cube_is_pushed(medium):
    cube = medium.task.cube
    first = medium.task.subgoal(medium.scene, "grounded")
    medium.move(cube, medium.scene.position(cube) + np.array([0.004, 0, 0]))
    assert medium.task.subgoal(medium.scene, "grounded") == first
    medium.move(cube, medium.scene.position(cube) + np.array([0.05, 0, 0]))
    assert medium.task.subgoal(medium.scene, "grounded") != first


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
