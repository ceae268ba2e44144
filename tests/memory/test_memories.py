import json
from dataclasses import replace
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from memrt.runtime.config import MemoryConfig, load_policy
from memrt.runtime.errors import MemrtError
from memrt.runtime.memory import Memory, begin_call, build_memory
from memrt.runtime.memory.plain_text import MAX_REPLY_CHARACTERS
from memrt.runtime.memory.state import MAX_HISTORY, commit

GOAL = "pick up the red cube and place it on the target, then press the button to stop"
TWICE = {name: load_policy(name).memory for name in ("am_simple", "am_sm_simple", "language_memory")}
LANGUAGE, SPATIAL, COMMITTED = (msgspec.structs.replace(each, change_of_mind="at_once") for each in TWICE.values())
HISTORY = load_policy("subgoal_simple").memory
MEMORYLESS = load_policy("memoryless").memory
KEYFRAMES = load_policy("memer").memory
EVERY = pytest.mark.parametrize(
    "config", [LANGUAGE, SPATIAL, COMMITTED, HISTORY, MEMORYLESS], ids=lambda config: config.kind
)


def after(memory: Memory, *replies: str):
    state = memory.initial()
    for reply in replies:
        state = memory.update(state, reply, GOAL).state
    return state


@EVERY
def test_empty_reply_holds_the_last_subgoal(config):
    memory = build_memory(config)
    state = after(memory, "pick up the red cube")
    for reply in ("", " \n", "<mem>I picked up the red cube.</mem>"):
        update = memory.update(state, reply, GOAL)
        assert (update.subgoal, update.held) == ("pick up the red cube", True)
        assert update.state.history == state.history


@EVERY
def test_before_any_subgoal_the_goal_stands_in(config):
    update = build_memory(config).update(build_memory(config).initial(), "", GOAL)
    assert (update.subgoal, update.held, update.state.history) == (GOAL, True, ())


@pytest.mark.parametrize("config", [HISTORY, LANGUAGE], ids=lambda config: config.kind)
def test_history_drops_consecutive_duplicates_only(config):
    assert after(build_memory(config), "pick", "pick ", "place", "", "place", "pick").history == (
        "pick",
        "place",
        "pick",
    )


def test_history_is_bounded_and_counted():
    memory = build_memory(HISTORY)
    state = after(memory, *(f"step {n}" for n in range(MAX_HISTORY + 3)))
    assert (len(state.history), state.history_dropped) == (MAX_HISTORY, 3)
    assert "subgoals are: 4. step 3; 5. step 4; " in memory.request(state, GOAL).user


def test_action_memory_is_carried_forward():
    memory = build_memory(LANGUAGE)
    assert memory.initial().action_memory == "No actions had been completed yet."
    state = after(memory, "place\n<mem>I picked it up.</mem>", "place", "place\n<spatial_mem>x</spatial_mem>")
    assert (state.action_memory, state.spatial_memory) == ("I picked it up.", "")
    assert "<mem>I picked it up.</mem>" in memory.request(state, GOAL).user
    assert after(memory, "place\n<mem>a</mem>", "<mem>b").action_memory == "b"


def test_spatial_memory_is_carried_forward():
    memory = build_memory(SPATIAL)
    assert memory.initial().spatial_memory == "No observations yet."
    state = after(memory, "place<mem>a</mem><spatial_mem>cube left</spatial_mem>", "place<mem>b</mem>")
    assert (state.action_memory, state.spatial_memory) == ("b", "cube left")
    assert "<spatial_mem>cube left</spatial_mem>" in memory.request(state, GOAL).user


@pytest.mark.parametrize("name", TWICE)
def test_a_change_of_mind_without_a_new_memory_has_to_be_said_twice(name):
    memory = build_memory(TWICE[name])
    picked = "pick the cube <9, 8>\n<mem>I put one cube into the bin <1, 2>.</mem>"
    press = "press the button\n<mem>I put one cube into the bin <1, 3>.</mem><spatial_mem>bin</spatial_mem>"
    state = after(memory, picked)
    doubted = memory.update(state, press, GOAL)
    assert (doubted.subgoal, doubted.held, doubted.state.history) == ("pick the cube <9, 8>", True, state.history)
    assert doubted.state.action_memory == state.action_memory
    assert doubted.state.spatial_memory == ("bin" if name == "am_sm_simple" else "")  # what is seen is no decision
    assert memory.update(doubted.state, press, GOAL).subgoal == "press the button"
    assert after(memory, picked, "press", picked, "press").subgoal == "pick the cube <9, 8>"  # twice in a row
    assert after(memory, picked, "press", "drop the cube").subgoal == "pick the cube <9, 8>"  # and the same


@pytest.mark.parametrize("name", TWICE)
def test_what_the_memory_accounts_for_is_followed_at_once(name):
    memory = build_memory(TWICE[name])
    first = "pick the cube <9, 8>\n<mem>No actions had been completed yet.</mem>"
    assert after(memory, "", first).subgoal == "pick the cube <9, 8>"  # the goal stood in; nothing was named before
    assert after(memory, first, "pick the cube <9, 7>").subgoal == "pick the cube <9, 7>"  # the same thing, seen anew
    assert after(memory, first, "put it down\n<mem>I picked the cube.</mem>").subgoal == "put it down"


def test_memoryless_asks_the_same_whatever_happened():
    memory = build_memory(MEMORYLESS)
    state = after(memory, "pick\n<mem>I picked it up.</mem>", "place")
    assert memory.request(state, GOAL) == memory.request(memory.initial(), GOAL)
    assert (state.action_memory, state.history) == ("", ())


@EVERY
def test_endless_reply_is_cut(config):
    update = build_memory(config).update(build_memory(config).initial(), "a" * (2 * MAX_REPLY_CHARACTERS), GOAL)
    assert len(update.subgoal) == MAX_REPLY_CHARACTERS


def test_oracle_has_no_memory():
    with pytest.raises(MemrtError, match=r"memory\.kind"):
        build_memory(load_policy("oracle_simple").memory)


words = st.sampled_from(["pick", "place", "<mem>", "</mem>", "<spatial_mem>", "</spatial_mem>", "<image>", " ", "\n"])
replies = st.lists(words | st.text(max_size=8), max_size=8).map("".join)


class AnyMemory(RuleBasedStateMachine):
    """Whatever the VLM answers, the action expert gets a subgoal and the next request is well-formed."""

    config: MemoryConfig

    def __init__(self):
        super().__init__()
        self.memory = build_memory(self.config)
        self.state = self.memory.initial()

    @rule(reply=replies)
    def answer(self, reply):
        before = self.state
        update = self.memory.update(before, reply, GOAL)
        assert update.subgoal.strip() == update.subgoal != ""
        assert update.state.subgoal == update.subgoal
        assert not update.held or update.subgoal == (before.subgoal or GOAL)
        assert self.memory.update(before, reply, GOAL) == update
        self.state = update.state

    @invariant()
    def history_has_no_consecutive_duplicates(self):
        history = self.state.history
        assert all(a != b for a, b in pairwise(history))
        assert "" not in history

    @invariant()
    def request_is_well_formed(self):
        request = self.memory.request(self.state, GOAL)
        assert request.user.count("<image>") == 1
        assert GOAL in request.user


def machine(config: MemoryConfig) -> type:
    case = type(config.kind, (AnyMemory,), {"config": config}).TestCase
    case.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)
    return case


TestLanguage = machine(LANGUAGE)
TestSpatial = machine(SPATIAL)
TestCommitted = machine(COMMITTED)
TestSaidTwice = machine(TWICE["am_sm_simple"])
TestCommittedSaidTwice = machine(TWICE["language_memory"])
TestHistory = machine(HISTORY)
TestMemoryless = machine(MEMORYLESS)


@given(st.lists(replies, max_size=6))
def test_language_memory_keeps_the_last_tagged_text(answers):
    memory = build_memory(LANGUAGE)
    tagged = [answer for answer in answers if "<mem>" in answer]
    expected = memory.update(memory.initial(), tagged[-1]).state.action_memory if tagged else LANGUAGE.initial_memory
    assert after(memory, *answers).action_memory == expected


def keyframe_reply(subtask: str, *positions: object) -> str:
    return json.dumps({"current_subtask": subtask, "keyframe_positions": positions})


def test_keyframe_votes_count_the_frames_that_were_shown():
    """Frames the cameras did not deliver are not shown, and positions count what is shown."""
    memory = build_memory(KEYFRAMES)
    update = memory.update(memory.initial(), keyframe_reply("pick", 1, 3, 9), GOAL, (5, 20, 35))
    assert (update.subgoal, update.held, update.state.votes.held()) == ("pick", False, (5, 35))
    assert memory.request(update.state, GOAL, (40, 45, 50)).keyframes == (5, 35)
    assert memory.request(update.state, GOAL, (35, 40)).keyframes == (5,)  # 35 is a recent frame


@pytest.mark.parametrize("reply", ["", "pick it up", "{", '{"current_subtask": 3}', keyframe_reply("pick", True)])
def test_an_unusable_keyframe_reply_holds_the_subgoal_and_changes_no_vote(reply):
    memory = build_memory(KEYFRAMES)
    before = memory.update(memory.initial(), keyframe_reply("pick", 1), GOAL, (0,)).state
    update = memory.update(before, reply, GOAL, (0, 5))
    assert (update.subgoal, update.held) == ("pick", True)
    assert update.state == before
    assert memory.update(memory.initial(), reply, GOAL, (0,)).subgoal == GOAL


def test_a_keyframe_reply_without_a_subtask_still_votes():
    memory = build_memory(KEYFRAMES)
    before = memory.update(memory.initial(), keyframe_reply("pick"), GOAL, (0,)).state
    update = memory.update(before, keyframe_reply(" ", 2), GOAL, (0, 5))
    assert (update.subgoal, update.held, update.state.votes.held()) == ("pick", True, (5,))


@pytest.mark.parametrize("config", [LANGUAGE, HISTORY, KEYFRAMES], ids=lambda config: config.kind)
@pytest.mark.parametrize("on_new_goal", ["clear", "keep"])
def test_a_new_goal_voids_the_subgoal_and_clears_or_keeps_the_rest(config, on_new_goal):
    memory = build_memory(config)
    reply = keyframe_reply("pick", 1) if config is KEYFRAMES else "pick\n<mem>I picked it up.</mem>"
    state = replace(memory.initial(), start_ns=5)
    state = memory.update(begin_call(memory, state, GOAL, on_new_goal), reply, GOAL, (0,)).state
    assert begin_call(memory, state, GOAL, on_new_goal) == state
    other = begin_call(memory, state, "stack the cubes", on_new_goal)
    assert (other.subgoal, other.goal, other.start_ns) == ("", "stack the cubes", 5)
    if on_new_goal == "clear":
        assert other == replace(memory.initial(), goal="stack the cubes", start_ns=5)
    else:
        assert replace(other, goal=GOAL, subgoal="pick") == state
    assert memory.update(other, "", "stack the cubes", (0,)).subgoal == "stack the cubes"


def test_only_a_success_enters_the_memory():
    """MEM: tried again and again, whatever the VLM writes meanwhile; it succeeded once the VLM moves on."""
    memory = build_memory(COMMITTED)
    state = after(
        memory, "pick up the cube <1, 2>\n<mem>I picked it up.</mem>", "pick up the cube <3, 4>\n<mem>I failed.</mem>"
    )
    assert (state.action_memory, state.pending_memory) == (COMMITTED.initial_memory, "I failed.")
    state = memory.update(state, "place it\n<mem>I picked up the cube.</mem>", GOAL).state
    assert (state.action_memory, state.pending_memory) == ("I picked up the cube.", None)
    assert "<mem>I picked up the cube.</mem>" in memory.request(state, GOAL).user
    assert memory.update(state, "<mem>I placed it.</mem>", GOAL).state.action_memory == "I picked up the cube."


def test_a_reply_that_moves_on_without_a_memory_commits_the_one_before():
    state = after(build_memory(COMMITTED), "pick\n<mem>I picked it up.</mem>", "place")
    assert (state.action_memory, state.pending_memory) == ("I picked it up.", None)


def test_the_goal_that_stands_in_for_a_subgoal_has_not_succeeded():
    state = after(build_memory(COMMITTED), "<mem>I did it.</mem>", "pick\n<mem>All done.</mem>")
    assert (state.subgoal, state.action_memory) == ("pick", COMMITTED.initial_memory)


def test_an_operator_can_confirm_what_is_pending():
    state = after(build_memory(COMMITTED), "pick\n<mem>I picked it up.</mem>")
    assert commit(state) == replace(state, action_memory="I picked it up.", pending_memory=None)
    assert commit(commit(state)) == commit(state)


@pytest.mark.parametrize("on_new_goal", ["clear", "keep"])
def test_a_new_goal_drops_what_is_pending(on_new_goal):
    memory = build_memory(COMMITTED)
    state = memory.update(
        begin_call(memory, memory.initial(), GOAL, on_new_goal), "pick\n<mem>I did.</mem>", GOAL
    ).state
    other = begin_call(memory, state, "stack the cubes", on_new_goal)
    assert other.pending_memory is None
    after_it = memory.update(other, "place\n<mem>I did more.</mem>", "stack the cubes").state
    assert after_it.action_memory == COMMITTED.initial_memory
