"""What holds for every memory task: its generator, its words, its expert, its determinism."""

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memrt.runtime.types import ActionChunk
from memrt.sim.env import CONTROL_DT_NS, TabletopEnv
from memrt.sim.expert import Expert
from memrt.sim.expert_episodes import Spoken, follow_expert
from memrt.sim.objects import BIN_HALF, CUBE_HALF, Bin, Button, Cube
from memrt.sim.tasks import TASKS, make_task
from memrt.sim.tasks.base import DIFFICULTIES, EPISODE_CAP

HALVES = {Cube: CUBE_HALF * 1.2, Button: 0.035, Bin: BIN_HALF}  # a cube is turned by up to 0.25 rad [m]
REACH = (0.33, 0.72)  # of an FR3 with the hand pointing down at the table, from its base [m]
SEEDS = st.integers(0, 2**31 - 1)
every_task = pytest.mark.parametrize("name", TASKS)


@every_task
@settings(max_examples=60)
@given(seed=SEEDS, difficulty=st.sampled_from(DIFFICULTIES))
def test_objects_stand_apart_within_reach(name, seed, difficulty):
    task = make_task(name, seed, difficulty)
    solid = [thing for thing in task.layout.objects if type(thing) in HALVES]
    names = [thing.name for thing in task.layout.objects]
    assert len(set(names)) == len(names)
    for i, thing in enumerate(solid):
        assert REACH[0] < np.hypot(thing.at.x, thing.at.y) < REACH[1]
        for other in solid[:i]:
            room = HALVES[type(thing)] + HALVES[type(other)]
            assert max(abs(thing.at.x - other.at.x), abs(thing.at.y - other.at.y)) > room, (thing, other)


@every_task
@settings(max_examples=30)
@given(seed=SEEDS)
def test_an_episode_is_a_function_of_its_seed(name, seed):
    first, second = make_task(name, seed), make_task(name, seed)
    assert (first.goal, first.layout, first.repetitions) == (second.goal, second.layout, second.repetitions)
    assert first.step == second.step
    assert first.segment == 0
    assert first.progress == 0.0
    assert 1 <= first.repetitions <= 5
    assert first.goal == first.goal.strip()
    assert first.goal[0].islower()


@every_task
def test_seeds_cover_the_difficulties_and_differ(name):
    tasks = [make_task(name, seed) for seed in range(40)]
    assert {task.difficulty for task in tasks} == set(DIFFICULTIES)
    assert len({task.layout for task in tasks}) == len(tasks)
    assert len({(task.goal, task.repetitions) for task in tasks}) >= 3  # PickHighlight's goal is always the same


@every_task
def test_the_expert_solves_an_episode_and_its_subgoals_tell_the_way(name):
    said, segments = [], []
    env = TabletopEnv(name, 1, "easy")

    def hear(spoken: Spoken) -> None:
        if not said or said[-1] != spoken:
            said.append(spoken)
        segments.append(env.task.segment)

    outcome = follow_expert(env, hear)
    assert outcome.status == "success", outcome.reason
    assert env.step_index < EPISODE_CAP
    assert all(0 <= later - earlier <= 1 for earlier, later in pairwise(segments))
    assert set(segments) == set(range(env.task.segments))  # every step of the way, and none beyond
    assert env.task.progress == 1.0
    assert len(said) >= 2
    for spoken in said:
        assert "<" not in spoken.simple
        assert "{" not in spoken.simple
        assert re.sub(r" <\d{1,3}, \d{1,3}>", "", spoken.grounded) == spoken.simple
    assert "<" in said[0].grounded


@every_task
def test_the_same_seed_and_chunks_give_the_same_states_bit_for_bit(name):
    def states() -> list[bytes]:
        env = TabletopEnv(name, 2, "hard")
        expert, seen = Expert(env), []
        env.arm()
        while env.step_index < 96 and not env.outcome.ended:
            env.send(ActionChunk(expert.chunk(env.task.step), env.t_ns + CONTROL_DT_NS, CONTROL_DT_NS, 0))
            env.advance(8)
            seen.append(env.scene.data.qpos.tobytes() + env.scene.data.mocap_pos.tobytes())
        return seen

    assert states() == states()


@every_task
def test_a_scene_is_described_with_pixels_inside_the_image(name):
    env = TabletopEnv(name, 3, "hard")
    parts = env.task.describe(env.scene).split("; ")
    assert parts[-1].startswith("gripper <")
    assert all(re.fullmatch(r"[a-z -]+ <\d{1,3}, \d{1,3}>( (open|closed|holding .*))?", part) for part in parts)
