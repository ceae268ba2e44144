"""SwingXtimes' rules: the order of the targets, the count, and what ends an episode."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.sim.objects import Cube
from memrt.sim.tasks import make_task
from memrt.sim.tasks.base import DIFFICULTIES
from memrt.sim.tasks.swing_x_times import REPETITIONS


@pytest.fixture
def hard(puppet):
    return puppet("SwingXtimes", difficulty="hard")


def visit(puppet, *sides: str) -> None:
    for side in sides:
        puppet.lift(puppet.task.cube, over=puppet.scene.position(f"{side}_target"))


def swing(puppet, times: int) -> None:
    puppet.lift(puppet.task.cube)
    visit(puppet, *["right", "left"] * times)


@given(seed=st.integers(0, 2**31 - 1), difficulty=st.sampled_from(DIFFICULTIES))
def test_the_table_of_difficulties_and_the_sides(seed, difficulty):
    task = make_task("SwingXtimes", seed, difficulty)
    assert REPETITIONS[difficulty][0] <= task.repetitions <= REPETITIONS[difficulty][1]
    assert len(list(task.layout.of(Cube))) == (1 if difficulty == "easy" else 3)
    assert task.layout["right_target"].at.y < 0 < task.layout["left_target"].at.y


def test_the_stated_swings_then_down_then_the_button_succeed(hard):
    said = [hard.task.subgoal(hard.scene, "simple")]
    segments = [hard.task.segment]
    hard.lift(hard.task.cube)
    for _ in range(hard.task.repetitions):
        for side in ("right", "left"):
            said.append(hard.task.subgoal(hard.scene, "simple"))
            segments.append(hard.task.segment)
            visit(hard, side)
    said.append(hard.task.subgoal(hard.scene, "simple"))
    segments.append(hard.task.segment)
    hard.rest(hard.task.cube)
    said.append(hard.task.subgoal(hard.scene, "simple"))
    segments.append(hard.task.segment)
    hard.press()
    assert hard.status == "success"
    assert segments == list(range(2 * hard.task.repetitions + 3))
    colour = hard.task.colour
    assert said == [
        f"pick up the {colour} cube",
        "move to the top of the right-side target for the first time",
        "move to the top of the left-side target for the first time",
        "move to the top of the right-side target for the second time",
        "move to the top of the left-side target for the second time",
        "move to the top of the right-side target for the third time",
        "move to the top of the left-side target for the third time",
        f"put the {colour} cube on the table",
        "press the button",
    ]


def test_the_left_side_first_fails(hard):
    hard.lift(hard.task.cube)
    visit(hard, "left")
    assert hard.status == "failure"
    assert "left-side target first" in hard.reason


def test_staying_over_a_target_and_coming_back_to_it_count_once(hard):
    hard.lift(hard.task.cube)
    visit(hard, "right", "right")
    hard.wait(5)
    hard.lift(hard.task.cube, over=[0.5, 0.0])
    visit(hard, "right")
    assert hard.task.visits == 1
    assert hard.status == "running"


def test_one_swing_too_many_fails(hard):
    swing(hard, hard.task.repetitions)
    visit(hard, "left")
    assert hard.status == "running"
    visit(hard, "right")
    assert hard.status == "failure"
    assert "more than" in hard.reason


@pytest.mark.parametrize("swings", [0, 1])
def test_putting_down_and_pressing_early_fails(hard, swings):
    swing(hard, swings)
    hard.rest(hard.task.cube)
    hard.press()
    assert hard.status == "failure"
    assert f"after {2 * swings} of" in hard.reason


def test_pressing_with_the_cube_in_the_hand_fails(hard):
    swing(hard, hard.task.repetitions)
    hard.press()
    assert hard.status == "failure"


def test_a_dropped_cube_is_picked_up_again_and_the_visits_count(hard):
    swing(hard, 1)
    segment = hard.task.segment
    hard.rest(hard.task.cube, [0.5, 0.0])
    assert hard.task.step.skill == "pick"
    assert hard.task.segment == segment
    hard.lift(hard.task.cube)
    assert hard.task.step.ordinal == 2


def test_another_cube_fails(hard):
    other = next(cube for cube in hard.task.layout.of(Cube) if cube.name != hard.task.cube)
    hard.lift(other.name)
    assert hard.status == "failure"
    assert other.words in hard.reason
