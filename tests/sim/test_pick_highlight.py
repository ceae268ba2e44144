"""PickHighlight's rules: what is shown when, what counts, what fails, what is forgiven."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memrt.sim.objects import CUBE_HALF, Button, Cube, Marker
from memrt.sim.tasks import make_task
from memrt.sim.tasks.base import DIFFICULTIES, Step
from memrt.sim.tasks.pick_highlight import CUBES, HIGHLIGHT_STEPS, HIGHLIGHTED

ON_THE_BUTTON = (0.35, 0.0, 0.04)


@pytest.fixture
def hard(puppet):
    """Six cubes, three of them highlighted, the button pressed once."""
    made = puppet("PickHighlight", seed=3, difficulty="hard")
    made.press()
    return made


def pick_all(puppet) -> list[str]:
    said = []
    while puppet.task.step.skill == "pick":
        said.append(puppet.task.subgoal(puppet.scene, "simple"))
        cube = puppet.task.step.thing
        puppet.lift(cube)
        assert puppet.task.subgoal(puppet.scene, "grounded") == "place the cube onto the table"
        puppet.rest(cube)
    return said


@settings(max_examples=60)
@given(seed=st.integers(0, 2**31 - 1), difficulty=st.sampled_from(DIFFICULTIES))
def test_the_table_of_difficulties(seed, difficulty):
    task = make_task("PickHighlight", seed, difficulty)
    cubes = {cube.name: cube for cube in task.layout.of(Cube)}
    assert len(cubes) == CUBES[difficulty]
    assert len(set(task.highlighted)) == task.repetitions == HIGHLIGHTED[difficulty]
    assert {marker.name for marker in task.layout.of(Marker)} == {f"{name}_marker" for name in task.highlighted}
    assert set(task.highlighted) <= set(cubes)
    button = next(task.layout.of(Button)).at
    assert all(cube.at.x - button.x > CUBE_HALF * 1.3 + 0.035 for cube in cubes.values())


def test_colours_repeat_and_every_place_in_the_row_may_be_highlighted():
    tasks = [make_task("PickHighlight", seed, "hard") for seed in range(40)]
    colours = [[cube.colour for cube in task.layout.of(Cube)] for task in tasks]
    assert any(len(set(each)) < 3 for each in colours)
    picked = {[cube.name for cube in task.layout.of(Cube)].index(name) for task in tasks for name in task.highlighted}
    assert picked == set(range(6))


def test_highlights_are_shown_at_the_press_and_only_for_a_moment(puppet):
    made = puppet("PickHighlight", difficulty="hard")
    markers = [marker.name for marker in made.task.layout.of(Marker)]
    made.wait(30)
    assert not any(made.scene.shown(name) for name in markers)
    assert "highlight" not in made.task.describe(made.scene)
    made.press()
    assert made.task.describe(made.scene).count("; highlight <") == len(markers)
    shown = 1  # the press' own control step has passed, and the one of the release
    while all(made.scene.shown(name) for name in markers):
        made.wait()
        shown += 1
    assert shown == HIGHLIGHT_STEPS
    assert "highlight" not in made.task.describe(made.scene)
    assert not any(made.scene.shown(name) for name in markers)
    for name in made.task.highlighted:
        assert np.allclose(made.scene.position(f"{name}_marker")[:2], made.scene.position(name)[:2])


def test_all_highlighted_cubes_then_the_button_succeed(hard):
    said = pick_all(hard)
    colours = [hard.task.layout[name].colour for name in hard.task.highlighted]
    ordinals = ("first", "second", "third")
    assert said == [
        f"pick up the {ordinal} highlighted cube, which is {colour}"
        for ordinal, colour in zip(ordinals, colours, strict=True)
    ]
    assert hard.task.subgoal(hard.scene, "simple") == "press the button to stop"
    hard.press()
    assert hard.status == "success", hard.reason


def test_the_order_is_free(hard):
    for cube in reversed(hard.task.highlighted):
        hard.lift(cube)
        hard.rest(cube)
    assert hard.task.step == Step("press", "button", 2)


def test_a_cube_that_was_not_highlighted_fails(hard):
    hard.lift(next(cube.name for cube in hard.task.layout.of(Cube) if cube.name not in hard.task.highlighted))
    assert hard.status == "failure"
    assert "not highlighted" in hard.reason


def test_the_same_cube_twice_fails(hard):
    for _ in range(2):
        hard.lift(hard.task.highlighted[0])
        hard.rest(hard.task.highlighted[0])
    assert hard.status == "failure"
    assert "twice" in hard.reason


def test_a_pick_before_the_button_fails(puppet):
    made = puppet("PickHighlight")
    made.lift(made.task.highlighted[0])
    assert made.status == "failure"
    assert "before the button" in made.reason


@pytest.mark.parametrize("done", [0, 1, 2])
def test_pressing_again_too_early_fails(hard, done):
    for cube in hard.task.highlighted[:done]:
        hard.lift(cube)
        hard.rest(cube)
    hard.press()
    assert hard.status == "failure"
    assert f"after {done} of 3" in hard.reason


def test_pressing_with_the_last_cube_in_the_hand_fails(hard):
    *others, last = hard.task.highlighted
    for cube in others:
        hard.lift(cube)
        hard.rest(cube)
    hard.lift(last)
    hard.press()
    assert hard.status == "failure"


def test_a_press_that_bounces_is_one_press(puppet):
    made = puppet("PickHighlight")
    made.hand[:] = ON_THE_BUTTON
    made.press()
    made.press()
    assert made.status == "running"
    made.hand[2] = 0.2
    made.wait()
    made.press()
    assert made.status == "failure"


def test_a_dropped_cube_is_due_again(hard):
    cube = hard.task.highlighted[0]
    hard.lift(cube)
    hard.held = None
    hard.wait()  # in the air, out of the hand
    hard.rest(cube)
    assert hard.task.step == Step("pick", cube, 1)
    hard.lift(cube)
    hard.rest(cube)
    assert hard.task.step == Step("pick", hard.task.highlighted[1], 2)


def test_a_cube_is_back_only_when_the_hand_has_left(hard):
    cube = hard.task.highlighted[0]
    hard.lift(cube)
    hard.hand[2] = 0.03
    hard.rest(cube)
    assert hard.task.step.skill == "put"
    hard.hand[2] = 0.2
    hard.wait()
    assert hard.task.put_back == [cube]


def test_one_highlighted_cube_needs_no_ordinal():
    task = make_task("PickHighlight", 2, "easy")
    task.pressed_at = 0
    colour = task.layout[task.highlighted[0]].colour
    assert task.words(task.step) == f"pick up the highlighted cube{{at}}, which is {colour}"
    assert (
        task.goal
        == "first press the button, then pick up all highlighted cubes, finally press the button again to stop"
    )
