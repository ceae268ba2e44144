"""ButtonUnmask's and ButtonUnmaskSwap's rules: cover, press, the right container in the right order."""

import json

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memrt.sim.frames import open_frames
from memrt.sim.grounding import record_grounding
from memrt.sim.objects import BUTTON_PRESSED, CONTAINER_HALF, Button, Container, Cube
from memrt.sim.scene import IMAGE_SIZE, Scene
from memrt.sim.tasks import make_task
from memrt.sim.tasks.base import DIFFICULTIES, Step
from memrt.sim.tasks.button_unmask import CONTAINERS, NAMED, SEEN_STEPS
from memrt.sim.tasks.button_unmask_swap import CONTAINERS as SWAP_CONTAINERS
from memrt.sim.tasks.button_unmask_swap import NAMED as SWAP_NAMED
from memrt.sim.tasks.button_unmask_swap import PAUSE_STEPS, SWAPS
from memrt.sim.tasks.containers import LOWERING_STEPS, SWAP_STEPS

COVERED = SEEN_STEPS + LOWERING_STEPS
CONTAINER_GREY = (0.34, 0.46, 0.52)  # as drawn
AT_THE_BUTTONS = (0.34, 0.0, 0.11)
SEEDS = st.integers(0, 2**31 - 1)
either = pytest.mark.parametrize("name", ["ButtonUnmask", "ButtonUnmaskSwap"])


def hands_off(puppet) -> None:
    """Take the hand to the buttons, so that everything the task moves can move, and let it come to rest."""
    puppet.hand[:] = AT_THE_BUTTONS
    puppet.wait(COVERED + PAUSE_STEPS + SWAP_STEPS * 3)
    assert puppet.task.still


def press_all(puppet) -> None:
    for button in puppet.task.buttons:
        puppet.press(button)


@pytest.fixture
def covered(puppet):
    """A puppet in which everything is due but the picks."""

    def make(name: str, seed: int = 3, difficulty: str = "hard"):
        made = puppet(name, seed, difficulty)
        hands_off(made)
        press_all(made)
        assert made.task.step.skill == "pick"
        return made

    return make


@either
@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, difficulty=st.sampled_from(DIFFICULTIES))
def test_the_table_of_difficulties(name, seed, difficulty):
    task = make_task(name, seed, difficulty)
    boxes, swap = list(task.layout.of(Container)), name == "ButtonUnmaskSwap"
    assert len(boxes) == (SWAP_CONTAINERS if swap else CONTAINERS)[difficulty]
    assert len(list(task.layout.of(Button))) == (2 if swap else 1)
    assert len({cube.colour for cube in task.layout.of(Cube)}) == 3
    if swap:
        assert SWAPS[difficulty][0] <= len(task.swaps) <= SWAPS[difficulty][1]
        assert SWAP_NAMED[difficulty][0] <= task.repetitions <= SWAP_NAMED[difficulty][1]
    else:
        assert task.repetitions == NAMED[difficulty]
    by_name = {box.name: box for box in boxes}
    for cube in task.layout.of(Cube):
        at = by_name[task.hiding[cube.colour]].at
        assert (cube.at.x, cube.at.y) == (at.x, at.y)
    for i, box in enumerate(boxes):
        assert all(np.hypot(box.at.x - o.at.x, box.at.y - o.at.y) > 2.5 * CONTAINER_HALF for o in boxes[:i])


@either
def test_everything_stands_inside_the_picture(name):
    scene = Scene(make_task(name, 0, "easy").layout)
    mujoco.mj_forward(scene.model, scene.data)
    front = scene.camera("front")
    for seed in range(100):
        for box in make_task(name, seed, "hard").layout.of(Container):
            for dx in (-0.04, 0.04):
                for dy in (-0.04, 0.04):
                    row, col = front.project(np.array([box.at.x + dx, box.at.y + dy, 0.0]))
                    assert 0 <= row < IMAGE_SIZE
                    assert 0 <= col < IMAGE_SIZE


@either
def test_cubes_are_seen_then_covered(puppet, name):
    made = puppet(name, difficulty="hard")
    made.hand[:] = AT_THE_BUTTONS
    assert made.task.describe(made.scene).count(" cube <") == 3
    made.wait(SEEN_STEPS)
    assert "container" not in made.task.describe(made.scene)
    made.wait(LOWERING_STEPS)
    seen = made.task.describe(made.scene)
    assert " cube <" not in seen
    assert seen.count("container <") == len(list(made.task.layout.of(Container)))
    assert made.task.step.skill == "press"
    assert made.task.outcome.status == "running"


@either
def test_presses_then_the_named_containers_succeed(covered, name):
    made = covered(name)
    task, said = made.task, []
    for colour in task.named:
        said.append(task.subgoal(made.scene, "simple"))
        made.lift(task.hiding[colour])
        if made.status == "running":
            assert task.subgoal(made.scene, "grounded") == "put down the container"
            made.rest(task.hiding[colour])
    assert made.status == "success", made.reason
    assert said == [f"pick up the container that hides the {colour} cube" for colour in task.named]
    assert len(said) == 2


@either
def test_another_container_fails(covered, name):
    made = covered(name)
    due = made.task.step.thing
    made.lift(next(box.name for box in made.task.layout.of(Container) if box.name != due))
    assert made.status == "failure"
    assert f"instead of the {made.task.named[0]} cube" in made.reason


@either
def test_the_second_named_container_first_fails(covered, name):
    made = covered(name)
    made.lift(made.task.hiding[made.task.named[1]])
    assert made.status == "failure"
    assert made.task.named[1] in made.reason


@either
def test_the_same_container_again_fails(covered, name):
    made = covered(name)
    first = made.task.step.thing
    made.lift(first)
    made.rest(first)
    made.lift(first)
    assert made.status == "failure"


@either
def test_the_right_container_before_the_button_fails(puppet, name):
    made = puppet(name)
    hands_off(made)
    made.lift(made.task.hiding[made.task.named[0]])
    assert made.status == "failure"
    assert "before pressing" in made.reason


@either
def test_pushing_a_cube_before_it_is_covered_fails(puppet, name):
    made = puppet(name)
    cube = next(made.task.layout.of(Cube))
    made.move(cube.name, [cube.at.x + 0.02, cube.at.y, cube.height])
    assert made.status == "failure"
    assert "before a container covered it" in made.reason


@either
def test_pressing_stays_due_until_the_containers_stand_still(puppet, name):
    made = puppet(name)
    press_all(made)
    last = Step("press", made.task.buttons[-1], len(made.task.buttons))
    assert made.task.step == last
    hands_off(made)
    assert made.task.step.skill == "pick"


def test_a_container_lifted_while_others_still_move_fails(puppet):
    made = puppet("ButtonUnmaskSwap", difficulty="hard")
    made.hand[:] = AT_THE_BUTTONS
    press_all(made)
    made.wait(COVERED + PAUSE_STEPS)
    swap = made.task.swaps[0]
    made.lift(next(b.name for b in made.task.layout.of(Container) if b.name not in (swap.first, swap.second)))
    assert made.status == "failure"
    assert "stood still" in made.reason


def test_either_button_may_come_first_and_one_of_them_twice_is_not_enough(puppet):
    made = puppet("ButtonUnmaskSwap", difficulty="easy")
    hands_off(made)
    assert made.task.subgoal(made.scene, "simple") == "press the first button"
    for _ in range(2):
        made.press("left_button")
        assert made.task.step == Step("press", "right_button", 2)
        assert made.task.subgoal(made.scene, "simple") == "press the second button"
    made.scene.data.joint("right_button").qpos[0] = BUTTON_PRESSED
    made.wait()
    assert made.task.step.skill == "pick"


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, difficulty=st.sampled_from(DIFFICULTIES))
def test_cubes_follow_their_containers_through_all_swaps(seed, difficulty):
    def play() -> bytes:
        task = make_task("ButtonUnmaskSwap", seed, difficulty)
        scene = Scene(task.layout)
        task.begin(scene)
        scene.tcp_position = lambda: np.array(AT_THE_BUTTONS)
        while not task.still:
            task.update(scene)
        for colour, container in task.hiding.items():
            away = scene.position(f"{colour}_cube") - scene.position(container)
            assert np.hypot(*away[:2]) < 1e-9
        first = task.layout[task.hiding[task.named[0]]]
        assert np.hypot(*(scene.position(first.name)[:2] - [first.at.x, first.at.y])) > CONTAINER_HALF
        return scene.data.qpos.tobytes()

    assert play() == play()


def test_wording_follows_the_benchmark():
    task = make_task("ButtonUnmask", 1, "hard")
    one, two = task.named
    assert task.goal == (
        f"first press the button, then pick up the container hiding the {one} cube, "
        f"finally pick up another container hiding the {two} cube"
    )
    assert task.words(task.step) == "press the button{at}"
    swapped = make_task("ButtonUnmaskSwap", 1, "medium")
    assert swapped.goal == (
        f"first press both buttons on the table, then pick up the container hiding the {swapped.named[0]} cube"
    )


def test_grounding_scenes_show_containers_standing_or_not_at_all(tmp_path):
    record_grounding(tmp_path, 12, 0, tasks=("ButtonUnmask",))
    scenes = [json.loads(line)["scene"] for line in (tmp_path / "scenes.jsonl").read_text().splitlines()]
    images = open_frames(tmp_path, "front")
    assert 0 < sum("container <" in scene for scene in scenes) < len(scenes)
    for image, scene in zip(images, scenes, strict=True):
        container = np.array(CONTAINER_GREY)
        looks_like_one = np.abs(image / image.max(-1, keepdims=True) - container / container.max()).max(-1) < 0.06
        assert (looks_like_one.sum() > 200) == ("container <" in scene)
