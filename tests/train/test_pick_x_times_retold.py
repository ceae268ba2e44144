"""A call told with other counts is the call that an episode with those counts would have recorded."""

import random

import mujoco
import numpy as np
import pytest

from memrt.runtime.config import load_policy
from memrt.runtime.errors import MemrtError
from memrt.runtime.memory.parser import parse_reply
from memrt.sim.objects import CUBE_HALF
from memrt.sim.scene import Scene
from memrt.sim.tasks.base import NUMBERS
from memrt.sim.tasks.pick_x_times import PickXtimes
from memrt.train.labels.turns import training_turn
from memrt.train.retelling.pick_x_times import draw_telling, retell, tellings
from memrt.train.retelling.words import before_the_next_step

PAIRS = [(places, most) for most in range(1, 6) for places in range(1, most + 1)]


def episode(repetitions: int) -> list[dict]:
    """One record per step of an episode in which cubes move by hand and the real task names what is due."""
    task = PickXtimes(3, "medium")
    task.repetitions = repetitions
    scene, held = Scene(task.layout), set()
    scene.pads_touching = lambda name: 2 * (name in held)
    scene.tcp_position = lambda: np.array([0.5, 0.0, 0.2])
    texts: list[tuple[str, str]] = []
    records: list[dict] = []

    def put(xy: np.ndarray, z: float) -> None:
        scene.data.joint(task.cube).qpos[:3] = [*xy[:2], z]
        mujoco.mj_forward(scene.model, scene.data)
        task.update(scene)

    scene.data.qpos[scene.finger_index] = 0.04
    mujoco.mj_forward(scene.model, scene.data)
    for _ in range(2 * repetitions + 1):
        segment = task.segment
        assert segment == len(records)
        texts.append((task.subgoal(scene, "simple"), task.subgoal(scene, "grounded")))
        records.append(
            {
                "step": 16 * segment,
                "goal": task.goal,
                "subgoal_simple": texts[-1][0],
                "subgoal_grounded": texts[-1][1],
                "segment": segment,
                "previous_segment": segment - 1,
                "history_simple": [simple for simple, _ in texts[:-1]],
                "history_grounded": [grounded for _, grounded in texts[:-1]],
                "scene": task.describe(scene),
            }
        )
        if task.step.skill == "pick":
            held.add(task.cube)
            put(scene.position(task.cube), 0.12)
        elif task.step.skill == "place":
            held.clear()
            put(scene.position("target") + np.array([0.004, 0.003, 0.0]), CUBE_HALF)
    return records


@pytest.fixture(scope="module")
def episodes() -> dict[int, list[dict]]:
    return {repetitions: episode(repetitions) for repetitions in range(1, 6)}


def labels(record: dict) -> dict:
    """What a policy is asked about; the frame's time and the gripper's pixel differ between episodes."""
    return {name: value for name, value in record.items() if name not in ("step", "scene")}


def test_with_nothing_in_hand_every_pair_of_counts_gives_the_record_of_that_episode(episodes):
    for places, repetitions in PAIRS:
        record = episodes[repetitions][2 * places]
        assert tellings(record, due_step_open=True) == PAIRS
        for told_places, told_repetitions in PAIRS:
            expected = episodes[told_repetitions][2 * told_places]
            assert labels(retell(record, told_places, told_repetitions)) == labels(expected)


def test_a_place_stays_a_place_of_a_later_round(episodes):
    for places, repetitions in PAIRS:
        if places == repetitions:
            continue
        record = episodes[repetitions][2 * places + 1]
        allowed = tellings(record, due_step_open=True)
        assert allowed == [(p, n) for p, n in PAIRS if p < n]
        for told_places, told_repetitions in allowed:
            expected = episodes[told_repetitions][2 * told_places + 1]
            assert labels(retell(record, told_places, told_repetitions)) == labels(expected)


@pytest.mark.parametrize("segment", [0, 1])
def test_a_first_round_stays_one(episodes, segment):
    record = episodes[2][segment]
    assert tellings(record, due_step_open=True) == [(0, repetitions) for repetitions in range(1, 6)]
    for repetitions in range(1, 6):
        assert labels(retell(record, 0, repetitions)) == labels(episodes[repetitions][segment])


def test_a_cube_in_hand_or_lost_rules_the_press_out(episodes):
    record = episodes[3][2]
    once_more = [(p, n) for p, n in PAIRS if p < n]
    holding = {**record, "scene": record["scene"].replace(" open", " holding the red cube")}
    assert tellings(holding, due_step_open=True) == once_more
    dropped = {**record, "previous_segment": record["segment"] + 1}
    assert tellings(dropped, due_step_open=True) == once_more
    with pytest.raises(MemrtError, match="other counts"):
        retell(dropped, 2, 2)


def test_a_change_that_skipped_a_step_keeps_its_round(episodes):
    skipped = {**episodes[3][3], "previous_segment": 1}
    assert tellings(skipped, due_step_open=True) == [(1, repetitions) for repetitions in range(2, 6)]


def test_the_step_under_way_stays_where_the_image_shows_it(episodes):
    assert tellings(episodes[3][2], due_step_open=False) == [(p, n) for p, n in PAIRS if p < n]
    assert tellings(episodes[3][6], due_step_open=False) == [(p, n) for p, n in PAIRS if p == n]


def test_without_memory_the_step_is_open_only_before_it_has_begun(episodes):
    begun = {**episodes[3][2], "previous_segment": 2}
    just_placed = episodes[3][2]
    assert before_the_next_step(just_placed)
    assert not before_the_next_step(begun)

    def steps(record: dict, *, remembers: bool) -> set[str]:
        told = [draw_telling(record, random.Random(seed), remembers=remembers) for seed in range(60)]
        return {telling["subgoal_simple"].split()[0] for telling in told}

    assert steps(begun, remembers=False) == {"pick"}
    assert steps(begun, remembers=True) == {"pick", "press"}
    assert steps(just_placed, remembers=False) == {"pick", "press"}


def test_without_memory_a_press_is_as_frequent_as_in_episodes(episodes):
    """After a place of N, one in N is the last: the labels that a policy sees without a count must not tell more."""
    told = [draw_telling(episodes[3][2], random.Random(seed), remembers=False) for seed in range(3000)]
    for repetitions in range(2, 6):
        same = [t for t in told if f"{NUMBERS[repetitions - 1]} times" in t["goal"]]
        share = sum(t["subgoal_simple"].startswith("press") for t in same) / len(same)
        assert share == pytest.approx(1 / repetitions, abs=0.06)


def test_the_memory_shown_and_the_one_asked_for_follow_the_counts(episodes):
    request, reply = training_turn(load_policy("am_grounded").memory, retell(episodes[5][2], 3, 3))
    assert "repeating this action three times" in request.user
    assert "cube three times and placed it on the target <" in request.user
    assert "> twice. I am holding it.</mem>" in request.user
    answer = parse_reply(reply)
    assert answer.subgoal.startswith("press the button <")
    assert answer.action_memory.endswith("three times.")
    assert answer.action_memory.count("three times") == 2
