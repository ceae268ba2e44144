"""Mutated answers through every policy: never an exception, never an empty subgoal, never an unbounded memory.

`MEMRT_FUZZ=100000` mutates as many; the suite's own number is small.
"""

import random

import pytest
from damage import how_many
from spoilt_answers import spoilt

from memrt.runtime.config import load_policy
from memrt.runtime.memory import begin_call, build_memory
from memrt.runtime.memory.keyframe_reply import KeyframeReply, format_keyframe_reply, parse_keyframe_reply
from memrt.runtime.memory.parser import Reply, format_reply, parse_reply
from memrt.runtime.memory.plain_text import MAX_REPLY_CHARACTERS
from memrt.runtime.memory.state import MAX_HISTORY
from memrt.runtime.policy.chat import render_chat

GOALS = (
    "pick up the red cube and place it on the target, repeating this action two times, then press the button to stop",
    "put two red cubes and one blue cube into the bin, then press the button to stop",
)
MEMORY = "I picked up the red cube once and placed it on the target <140, 75> once."
SCENE = "The blue cube is under the container <88, 30>."
TAGGED = (
    format_reply(Reply("pick up the red cube <120, 88> for the second time", MEMORY)),
    format_reply(Reply("press the button <155, 109> to stop", MEMORY, SCENE)),
    format_reply(Reply("place the red cube onto the target")),
    f"press it\n<mem>{MEMORY}\n<spatial_mem>{SCENE}",
    "pick up <|box_start|>(469,344)<|box_end|>\n<mem></mem>",
)
JSON = (
    format_keyframe_reply(KeyframeReply("pick up the red cube <120, 88>", (1, 4))),
    f"Sure:\n```json\n{format_keyframe_reply(KeyframeReply('press the button', (2,)))}\n```",
    '{"current_primitive": "put {it} \\"there\\"", "keyframe_positions": ["3", 2.0, null]}',
    '{"keyframe_positions": null, "current_subtask": "wait"} and more',
)
EPISODE = 40  # answers before memory begins anew
POLICIES = (
    "am_grounded",
    "am_simple",
    "am_sm_grounded",
    "am_sm_simple",
    "language_memory",
    "memer",
    "memer_droid",
    "memoryless",
    "subgoal_grounded",
    "subgoal_simple",
)


def test_any_answer_with_tags_is_taken_apart():
    rng = random.Random(1)
    for _ in range(how_many(4000)):
        text = spoilt(rng, TAGGED)
        reply = parse_reply(text)
        assert "<mem>" not in reply.subgoal
        assert "<spatial_mem>" not in reply.subgoal
        assert reply.subgoal == reply.subgoal.strip()
        assert (reply.action_memory is None) == ("<mem>" not in text)
        assert (reply.spatial_memory is None) == ("<spatial_mem>" not in text)


def test_any_answer_in_json_is_read_or_refused():
    rng = random.Random(2)
    read = 0
    total = how_many(4000)
    for _ in range(total):
        reply = parse_keyframe_reply(spoilt(rng, JSON))
        if reply is not None:
            read += 1
            assert reply.subtask == reply.subtask.strip()
            assert all(type(position) is int for position in reply.positions)
    assert 0.05 < read / total < 0.95  # the mutations break some answers and leave some readable


@pytest.mark.parametrize("name", POLICIES)
def test_no_answer_breaks_a_policy(name):
    """Whole episodes of mutated answers; the goal changes now and then, frames come and stay away."""
    config = load_policy(name).memory
    memory, rng = build_memory(config), random.Random(name)
    texts = JSON if config.kind == "keyframes" else TAGGED
    goal, state, tick = GOALS[0], memory.initial(), 0
    for number in range(how_many(1200)):
        if number % EPISODE == 0:
            state, tick = memory.initial(), 0
        if rng.random() < 0.02:
            goal = rng.choice(GOALS)
        tick += rng.choice((16, 24, 160))
        recent = tuple(sorted(rng.sample(range(max(0, tick - 40), tick + 1, 8), rng.randint(0, 3))))
        state = begin_call(memory, state, goal, config.on_new_goal)
        before = state
        request = memory.request(state, goal, recent)
        images = len(request.keyframes) + len(request.recent) if config.kind == "keyframes" else 1
        render_chat(request.system, request.user, [1] * images)  # refuses forged turns and images
        update = memory.update(state, spoilt(rng, texts), goal, recent)
        assert update.subgoal.strip() == update.subgoal != ""
        assert update.state.subgoal == update.subgoal
        assert not update.held or update.subgoal == (before.subgoal or goal)
        assert update.subgoal.encode().decode() == update.subgoal
        state = update.state
        kept = (state.action_memory, state.pending_memory or "", state.spatial_memory, state.subgoal)
        assert max(map(len, kept)) <= MAX_REPLY_CHARACTERS
        assert len(state.history) <= MAX_HISTORY
        if config.keyframes is not None:
            assert len(state.votes.held()) <= config.keyframes.max_open_frames + config.keyframes.keyframes
