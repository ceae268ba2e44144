"""BinFill's rules: colours and counts, drops, and that nobody sees what is in the bin."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.sim.objects import CUBE_HALF, Cube
from memrt.sim.render import SceneRenderer
from memrt.sim.tasks import make_task
from memrt.sim.tasks.base import DIFFICULTIES, Step
from memrt.sim.tasks.bin_fill import COLOURS_ASKED, COLOURS_ON_TABLE, CUBES_ASKED, CUBES_ON_TABLE, LET_GO_AFTER


@pytest.fixture
def hard(puppet):
    return puppet("BinFill", seed=5, difficulty="hard")


def drop(puppet, cube: str) -> None:
    puppet.lift(cube, over=puppet.scene.position("bin"))
    puppet.held = None
    x, y, _ = puppet.scene.position("bin")
    puppet.move(cube, [x, y, CUBE_HALF])


def fill(puppet, count: int) -> None:
    for _ in range(count):
        drop(puppet, puppet.task.step.thing)


@given(seed=st.integers(0, 2**31 - 1), difficulty=st.sampled_from(DIFFICULTIES))
def test_the_table_of_difficulties(seed, difficulty):
    task = make_task("BinFill", seed, difficulty)
    cubes = list(task.layout.of(Cube))
    colours = [cube.colour for cube in cubes]
    assert len(set(colours)) == COLOURS_ON_TABLE[difficulty]
    for value, bounds in (
        (len(cubes), CUBES_ON_TABLE),
        (len(task.asked), COLOURS_ASKED),
        (sum(task.asked.values()), CUBES_ASKED),
    ):
        assert bounds[difficulty][0] <= value <= bounds[difficulty][1]
    assert all(colours.count(colour) > n > 0 for colour, n in task.asked.items())  # one more than asked, at least


def test_the_stated_cubes_then_the_button_succeed(hard):
    said = []
    for _ in range(hard.task.repetitions):
        said.append(hard.task.subgoal(hard.scene, "simple"))
        drop(hard, hard.task.step.thing)
    assert hard.task.step == Step("press", "button")
    hard.press()
    assert hard.status == "success"
    expected = [
        f"pick up the {('first', 'second', 'third')[i]} {colour} cube"
        for colour, n in hard.task.asked.items()
        for i in range(n)
    ]
    assert said == expected


def test_what_is_in_the_bin_is_out_of_sight(hard):
    cube = hard.task.step.thing
    with SceneRenderer(hard.scene) as renderer:
        empty = renderer.render("front")
        drop(hard, cube)
        assert not hard.scene.shown(cube)
        assert cube.split("_")[0] in hard.task.asked
        filled = renderer.render("front")
    row, col = hard.scene.pixel(hard.scene.position("bin"))
    around = np.s_[row - 8 : row + 25, col - 20 : col + 20]
    assert np.array_equal(empty[around], filled[around])
    assert hard.task.describe(hard.scene).count("cube") == len(list(hard.task.layout.of(Cube))) - 1


def test_another_cube_of_the_colour_will_do(hard):
    due = hard.task.step.thing
    colour = hard.task.layout[due].colour
    other = next(c.name for c in hard.task.layout.of(Cube) if c.colour == colour and c.name != due)
    drop(hard, other)
    assert hard.status == "running"
    assert hard.task.in_bin[colour] == 1


def test_one_cube_too_many_of_a_colour_fails_when_it_is_lifted(hard):
    fill(hard, hard.task.repetitions)
    colour = next(iter(hard.task.asked))
    left = next(c.name for c in hard.task.layout.of(Cube) if c.colour == colour and hard.scene.shown(c.name))
    hard.lift(left)
    assert hard.status == "failure"
    assert f"picked up a {colour} cube too many" in hard.reason


def test_a_colour_that_is_not_asked_for_fails(puppet):
    medium = next(p for seed in range(20) if len((p := puppet("BinFill", seed=seed)).task.asked) == 1)
    wrong = next(cube for cube in medium.task.layout.of(Cube) if cube.colour not in medium.task.asked)
    medium.lift(wrong.name)
    assert medium.status == "failure"


@pytest.mark.parametrize("filled", [0, 2])
def test_pressing_early_fails(hard, filled):
    fill(hard, filled)
    hard.press()
    assert hard.status == "failure"
    assert f"with {filled} of {hard.task.repetitions}" in hard.reason


def test_a_cube_dropped_beside_the_bin_is_due_again(hard):
    before = hard.task.step
    hard.lift(before.thing)
    assert hard.task.step.skill == "drop"
    hard.rest(before.thing)
    hard.wait(LET_GO_AFTER)
    assert hard.task.step == before
    assert hard.status == "running"


def test_the_goal_in_the_benchmarks_phrasing(hard):
    hard.task.asked = {"red": 2}
    assert hard.task.goal == "put two red cubes into the bin, then press the button to stop"
    hard.task.asked = {"red": 1, "blue": 2, "green": 1}
    assert (
        hard.task.goal
        == "put one red cube, two blue cubes and one green cube into the bin, then press the button to stop"
    )
