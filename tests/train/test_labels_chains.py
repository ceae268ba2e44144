"""Recorded episodes as every policy would have lived them."""

import pytest
from demonstrations import recorded
from hypothesis import given, settings
from hypothesis import strategies as st

from memrt.runtime.config import load_policy
from memrt.runtime.errors import MemrtError
from memrt.runtime.memory import build_memory
from memrt.runtime.memory.keyframe_reply import parse_keyframe_reply
from memrt.sim.tasks import TASKS
from memrt.train.labels.chains import CALL_EVERY, turns
from memrt.train.labels.keyframes import EpisodeKeyframes
from memrt.train.labels.turns import training_turn, with_spatial_memories

WORDS = ("memoryless", "subgoal_simple", "subgoal_grounded", "am_simple", "am_grounded", "language_memory")
GRIPPER = "gripper <74, 130> open"


def called(name, seed, every=CALL_EVERY):
    """A demonstration's calls as the lines of a data set."""
    calls = enumerate(recorded(name, seed))
    return [{"task": name, "episode": seed, "step": every * n, **call} for n, call in calls]


def filmed(goal, subgoals, scenes, segments, every=4):
    """An episode's samples at every fourth control step."""
    return [
        {
            "task": "any",
            "episode": 1,
            "step": every * n,
            "goal": goal,
            "segment": segment,
            "subgoal_simple": subgoals[segment],
            "subgoal_grounded": subgoals[segment],
            "scene": f"{scene}; {GRIPPER}",
        }
        for n, (scene, segment) in enumerate(zip(scenes, segments, strict=True))
    ]


@settings(max_examples=8)
@given(st.sampled_from(list(TASKS)), st.integers(0, 2**31 - 1), st.sampled_from(WORDS))
def test_turns_of_an_episode_are_those_of_its_samples(name, seed, policy):
    """What a single sample is trained on is what the runtime shows after the labelled replies."""
    config = load_policy(policy).memory
    samples = called(name, seed)
    for sample, turn in zip(samples, turns(config, samples), strict=True):
        assert (turn.request, turn.reply) == training_turn(config, sample)
        assert turn.images == (turn.sample,)


def test_every_phase_is_a_run_of_its_own():
    samples = called("PickXtimes", 3, every=4)
    config = load_policy("am_simple").memory
    found = list(turns(config, samples, phases=(0, 8)))
    assert [turn.sample for turn in found] == [*range(0, len(samples), 4), *range(2, len(samples), 4)]
    initial = build_memory(config).request(build_memory(config).initial(), samples[0]["goal"])
    assert [found[n].request for n in (0, len(range(0, len(samples), 4)))] == [initial] * 2


def test_spatial_memory_is_carried_from_call_to_call():
    goal = "first press the button, then pick up the container hiding the red cube"
    subgoals = ["press the button <60, 100>", "pick up the container <128, 60> that hides the red cube"]
    scenes = ["red cube <130, 60>"] * 5 + ["container <128, 60>"] * 8
    samples = filmed(goal, subgoals, scenes, [0] * 13)
    samples = [{**s, "history_grounded": [], "history_simple": [], "previous_segment": 0} for s in samples]
    config = load_policy("am_sm_grounded").memory
    labelled = with_spatial_memories(samples)
    for turn in turns(config, samples):
        assert (turn.request, turn.reply) == training_turn(config, labelled[turn.sample])


SWAP = "first press both buttons on the table, then pick up the container hiding the red cube"
SWAP_SUBGOALS = ["press the first button", "press the second button", "pick up the container that hides the red cube"]


def test_keyframes_show_what_will_be_hidden_and_what_was_done():
    still = "container <128, 60>; container <148, 200>"
    on_the_way = [f"container <{128 - n}, {60 + 23 * n}>; container <{148 + n}, {200 - 23 * n}>" for n in range(1, 6)]
    scenes = ["red cube <130, 60>"] * 3 + [still] * 4 + on_the_way + ["container <148, 200>; container <128, 60>"] * 9
    segments = [0] * 5 + [1] * 10 + [2] * 6
    moments = EpisodeKeyframes(filmed(SWAP, SWAP_SUBGOALS, scenes, segments))
    steps = range(0, 4 * len(scenes), 4)
    assert moments.positions(steps) == (
        3,  # the last frame without containers
        5,  # the first button is down
        10,  # the swap's middle
        11,
        15,  # the second button
    )
    assert moments.positions(steps[3:5]) == ()  # nothing ended between these two


def test_highlights_are_shown_rather_than_the_press_before_them():
    goal = "first press the button, then pick up all highlighted cubes, finally press the button again to stop"
    subgoals = ["press the button", "pick up the highlighted cube, which is red", "place the cube onto the table"]
    scenes = ["red cube <130, 60>"] * 2 + ["red cube <130, 60>; highlight <134, 60>"] * 3 + ["red cube <130, 60>"] * 3
    moments = EpisodeKeyframes(filmed(goal, subgoals, scenes, [0, 0, 1, 1, 1, 1, 2, 2]))
    assert moments.positions(range(0, 32, 4)) == (3,)
    assert moments.positions(range(8, 32, 4)) == ()  # without the frame before it, a highlight is not the first


def test_a_keyframe_policy_sees_again_what_its_replies_named():
    still = "container <128, 60>; container <148, 200>"
    scenes = ["red cube <130, 60>"] * 5 + [still] * 28
    samples = filmed(SWAP, SWAP_SUBGOALS, scenes, [0] * 33)
    config = load_policy("memer").memory
    found = list(turns(config, samples))
    named = [parse_keyframe_reply(turn.reply).positions for turn in found]
    assert [turn.request.recent for turn in found[:3]] == [(0,), (0, 8, 16), (8, 16, 24, 32)]
    assert named == [(), (), (2,), (), (), (), (), (), ()]
    assert [samples[image]["step"] for image in found[-1].images] == [16, 104, 112, 120, 128]
    assert found[-1].request.user.count("<image>") == len(found[-1].images)


def test_frames_that_were_not_recorded_are_refused():
    samples = filmed(SWAP, SWAP_SUBGOALS, ["red cube <130, 60>"] * 5, [0] * 5, every=16)
    with pytest.raises(MemrtError, match="front frame"):
        list(turns(load_policy("memer").memory, samples))
    with pytest.raises(MemrtError, match="raw_rate_hz"):
        list(turns(load_policy("memer_droid").memory, samples))


def test_episodes_recorded_elsewhere_keep_the_end_of_every_step():
    samples = filmed("fold the towel", ["fold it once", "fold it twice"], ["red cube <1, 2>"] * 12, [0] * 5 + [1] * 7)
    moments = EpisodeKeyframes([{**sample, "scene": ""} for sample in samples])
    assert moments.positions(range(0, 48, 4)) == (5,)
