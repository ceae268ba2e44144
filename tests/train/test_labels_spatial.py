"""Spatial memories: what was seen, in the report's limits, and where it is now though nobody sees it."""

import re

import numpy as np
import pytest

from memrt.runtime.errors import MemrtError
from memrt.runtime.memory.coordinates import find_coordinates
from memrt.sim.env import TabletopEnv
from memrt.sim.objects import Cube
from memrt.sim.record import SAMPLE_EVERY
from memrt.sim.tasks import TASKS
from memrt.train.labels import INITIAL_SPATIAL_MEMORY, SPATIAL_WORD_LIMIT, spatial_memories
from memrt.train.labels.scene_text import read_scene
from memrt.train.labels.tracking import Track, follow

TWO_NAMED = (
    "first press both buttons on the table, then pick up the container hiding the red cube, finally pick up another "
    "container hiding the blue cube"
)


def memories(goal, *scenes, style="grounded"):
    return spatial_memories(goal, [f"{scene}; gripper <74, 130> open" for scene in scenes], style)


def watched(name, seed, difficulty, steps=160):
    """A task whose hand stays away: the descriptions, as recorded, and where each cube really was."""
    env = TabletopEnv(name, seed, difficulty)
    task, scene = env.task, env.scene
    scene.tcp_position = lambda: np.array([0.0, 0.0, 0.5])
    told, pixels = [], []
    for step in range(steps):
        if step % SAMPLE_EVERY == 0:
            told.append(task.describe(scene))
            pixels.append({cube.colour: scene.pixel(scene.position(cube.name)) for cube in task.layout.of(Cube)})
        task.update(scene)
    return task, told, pixels


@pytest.mark.parametrize(
    ("name", "difficulty", "seed"),
    [("ButtonUnmaskSwap", "hard", seed) for seed in range(4)] + [("ButtonUnmask", "hard", 1)],
)
def test_covered_cubes_are_followed_through_every_swap(name, difficulty, seed):
    task, told, pixels = watched(name, seed, difficulty)
    after = spatial_memories(task.goal, told, "grounded")
    for memory, scene, truth in zip(after, told, pixels, strict=True):
        for colour in task.named:
            said = re.search(rf"{colour} cube (?:under the container )?<(\d+), (\d+)>", memory, re.IGNORECASE)
            assert np.abs(np.subtract(truth[colour], [int(value) for value in said.groups()])).max() <= 6, scene
    assert after[0].count("under") == 0
    assert after[-1].count("under the container") == len(task.named)
    assert ("swapping" in " ".join(after)) == (name == "ButtonUnmaskSwap")


@pytest.mark.parametrize("name", TASKS)
def test_rules_of_the_report(name):
    task, told, _ = watched(name, 5, "hard", steps=60)
    for style in ("simple", "grounded"):
        for n, memory in enumerate(spatial_memories(task.goal, told, style), start=1):
            assert memory.isascii()
            assert len(memory.split()) < SPATIAL_WORD_LIMIT
            assert "gripper" not in memory
            seen = " ".join(told[:n])
            assert all(memory[c.start : c.stop] in seen for c in find_coordinates(memory))
            assert not (style == "simple" and find_coordinates(memory))


def test_wording_of_covered_cubes():
    red, blue, table = "red cube <130, 60>", "blue cube <150, 200>", "right button <95, 105>"
    boxes = "container <128, 60>; container <148, 200>"
    scenes = (
        f"{red}; {blue}; {table}",
        f"{red}; container <90, 200>; container <128, 61>; {table}",  # one has come down, one is still above its cube
        f"{boxes}; {table}",
        f"{boxes}; {table}",
        f"container <124, 70>; container <152, 190>; {table}",
        f"container <140, 160>; container <136, 100>; {table}",
        f"container <129, 72>; container <147, 188>; {table}",
        f"{boxes}; {table}",
        f"{boxes}; {table}",
        f"blue cube <150, 200>; container <100, 62>; container <148, 200>; {table}",
    )
    assert memories(TWO_NAMED, *scenes) == [
        "Red cube <130, 60>. Blue cube <150, 200>.",
        "Red cube <130, 60>. Blue cube <150, 200>.",
        "Red cube <130, 60>. Blue cube <150, 200>.",
        "Red cube under the container <128, 60>. Blue cube under the container <148, 200>.",
        "Red cube under the container <124, 70>, swapping with <152, 190>. "
        "Blue cube under the container <152, 190>, swapping with <124, 70>.",
        "Red cube under the container <136, 100>, swapping with <140, 160>. "
        "Blue cube under the container <140, 160>, swapping with <136, 100>.",
        "Red cube under the container <147, 188>, swapping with <129, 72>. "
        "Blue cube under the container <129, 72>, swapping with <147, 188>.",
        "Red cube under the container <148, 200>, swapping with <128, 60>. "
        "Blue cube under the container <128, 60>, swapping with <148, 200>.",
        "Red cube under the container <148, 200>. Blue cube under the container <128, 60>.",
        "Red cube under the container <148, 200>.",
    ]
    assert memories(TWO_NAMED, *scenes, style="simple")[3] == (
        "Red cube under the container on the left. Blue cube under the container on the right."
    )


@pytest.mark.parametrize(
    ("goal", "scenes", "grounded", "simple"),
    [
        (
            "first press the button, then pick up all highlighted cubes, finally press the button again to stop",
            ("red cube <167, 119>; red cube <130, 40>", "red cube <167, 119>; red cube <130, 40>; highlight <134, 41>"),
            "Highlighted: red cube <130, 40>.",
            "Highlighted: red cube on the left.",
        ),
        (
            "put two red cubes and one blue cube into the bin, then press the button to stop",
            (
                "red cube <130, 40>; red cube <130, 60>; green cube <150, 90>; blue cube <140, 200>; bin <91, 83>",
                "red cube <130, 40>; green cube <150, 90>; blue cube <140, 200>; bin <91, 83>",
            ),
            "In the bin <91, 83>: one red cube.",
            "In the bin: one red cube.",
        ),
        (
            "pick up the red cube and place it on the target, then press the button to stop",
            ("red cube <130, 40>; target <140, 75>", "red cube <134, 80>; target <140, 75>"),
            "Red cube on the target <140, 75>.",
            "Red cube on the target.",
        ),
        (
            "pick up the red cube, move it to the right-side target and then to the left-side target, then put down "
            "the cube and press the button to stop",
            ("red cube <130, 40>; right-side target <140, 40>; left-side target <141, 210>",),
            "Red cube <130, 40>, right-side target <140, 40>, left-side target <141, 210>.",
            "Red cube on the table.",
        ),
        (
            "press the button to stop the cube just as it reaches the target for the second time",
            ("green cube <160, 90>; target <167, 130>", "green cube <160, 120>; target <167, 130>"),
            "Cube on the target <167, 130>, coming from the left.",
            "Cube on the target, coming from the left.",
        ),
    ],
)
def test_wording_of_the_other_tasks(goal, scenes, grounded, simple):
    assert memories(goal, *scenes)[-1] == grounded
    assert memories(goal, *scenes, style="simple")[-1] == simple


def test_nothing_is_noted_before_it_is_seen():
    goal = "first press the button, then pick up all highlighted cubes, finally press the button again to stop"
    assert memories(goal, "red cube <167, 119>; button <94, 75>") == [INITIAL_SPATIAL_MEMORY]


def test_what_rests_is_found_before_what_moves():
    tracks = (Track((100, 100), rested=(100, 100)), Track((60, 100), moved=(38, 0)))
    assert [track.at for track in follow(tracks, [(101, 100), (130, 100)])] == [(101, 100), (130, 100)]
    assert follow(tracks, [(101, 100), (130, 100)])[0].place == (100, 100)


def test_other_texts_are_refused():
    with pytest.raises(MemrtError, match="description"):
        read_scene("a table with cubes")
    with pytest.raises(MemrtError, match="dance"):
        spatial_memories("dance", [], "simple")
    with pytest.raises(MemrtError, match="recorded elsewhere"):
        spatial_memories(TWO_NAMED, [""], "simple")
