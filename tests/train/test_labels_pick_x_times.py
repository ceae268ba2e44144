import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memrt.runtime.config import load_policy
from memrt.runtime.errors import MemrtError
from memrt.runtime.memory import build_memory
from memrt.runtime.memory.coordinates import find_coordinates, without_coordinates
from memrt.runtime.memory.parser import Reply, format_reply
from memrt.train.labels import INITIAL_MEMORY, WORD_LIMIT, completed, label, label_pair

ORDINALS = ("first", "second", "third", "fourth", "fifth")
pixels = st.tuples(st.integers(0, 255), st.integers(0, 255)).map(lambda p: f"<{p[0]}, {p[1]}>")


def goal(colour: str, times: int) -> str:
    many = f", repeating this action {('two', 'three', 'four', 'five')[times - 2]} times" if times > 1 else ""
    return f"pick up the {colour} cube and place it on the target{many}, then press the button to stop"


@st.composite
def episodes(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A goal and the grounded subgoals of a whole, faultless episode."""
    colour = draw(st.sampled_from(["red", "green", "blue", "dark blue"]))
    times = draw(st.integers(1, 5))
    target, button = draw(pixels), draw(pixels)
    subgoals = []
    for ordinal in ORDINALS[:times]:
        subgoals.append(f"pick up the {colour} cube {draw(pixels)} for the {ordinal} time")
        subgoals.append(f"place the {colour} cube onto the target {target}")
    return goal(colour, times), [*subgoals, f"press the button {button} to stop"]


TWICE = [
    "pick up the red cube <120, 88> for the first time",
    "place the red cube onto the target <140, 75>",
    "pick up the red cube <138, 76> for the second time",
    "place the red cube onto the target <140, 75>",
    "press the button <60, 100> to stop",
]


def test_wording_of_an_episode():
    memories = [label(goal("red", 2), TWICE[:n], "grounded") for n in range(6)]
    assert memories == [
        "No actions had been completed yet.",
        "I picked up the red cube once. I am holding it.",
        "I picked up the red cube once and placed it on the target <140, 75> once.",
        "I picked up the red cube twice and placed it on the target <140, 75> once. I am holding it.",
        "I picked up the red cube twice and placed it on the target <140, 75> twice.",
        "I picked up the red cube twice and placed it on the target <140, 75> twice and pressed the button <60, 100>.",
    ]


@settings(max_examples=25)
@given(episodes())
def test_simple_label_is_the_grounded_one_without_coordinates(episode):
    text, subgoals = episode
    plain = [without_coordinates(subgoal) for subgoal in subgoals]
    for n in range(len(subgoals) + 1):
        grounded = label(text, subgoals[:n], "grounded")
        assert label(text, plain[:n], "simple") == without_coordinates(grounded)
        assert label(text, subgoals[:n], "simple") == without_coordinates(grounded)


@settings(max_examples=25)
@given(episodes())
def test_rules_of_the_report(episode):
    text, subgoals = episode
    for style in ("simple", "grounded"):
        for n in range(len(subgoals) + 1):
            memory = label(text, subgoals[:n], style)
            assert memory.isascii()
            assert len(memory.split()) < WORD_LIMIT[style]
            assert memory == INITIAL_MEMORY or memory.startswith("I ")
            written = {memory[c.start : c.stop] for c in find_coordinates(memory)}
            assert written <= set(re.findall(r"<\d+, \d+>", " ".join(subgoals[:n])))
            assert not (style == "simple" and written)


@settings(max_examples=25)
@given(episodes())
def test_every_state_of_an_episode_has_its_own_memory(episode):
    """Otherwise m_{t-1} could not tell which subgoal was active before."""
    text, subgoals = episode
    for style in ("simple", "grounded"):
        memories = [label(text, subgoals[:n], style) for n in range(len(subgoals) + 1)]
        assert len(set(memories)) == len(memories)


@settings(max_examples=25)
@given(episodes())
def test_counts_grow_by_one_and_holding_is_said(episode):
    text, subgoals = episode
    for n, subgoal in enumerate(subgoals):
        before, after = completed(text, subgoals[:n]), completed(text, subgoals[: n + 1])
        assert after.picks - before.picks == int(subgoal.startswith("pick"))
        assert after.places - before.places == int(subgoal.startswith("place"))
        assert ("I am holding it." in label(text, subgoals[: n + 1], "simple")) == subgoal.startswith("pick")


@settings(max_examples=25)
@given(episodes())
def test_naming_the_current_subgoal_changes_nothing_in_a_faultless_episode(episode):
    text, subgoals = episode
    for n, current in enumerate(subgoals):
        assert label(text, subgoals[:n], "grounded", current) == label(text, subgoals[:n], "grounded")


def test_dropped_cube_takes_the_pick_back():
    history = [*TWICE[:4], "pick up the red cube <90, 90> for the second time"]
    assert label(goal("red", 2), history[:-1], "simple", history[-1]) == (
        "I picked up the red cube once and placed it on the target once."
    )
    assert label(goal("red", 2), history, "simple") == (
        "I picked up the red cube twice and placed it on the target once. I am holding it."
    )


@settings(max_examples=25)
@given(episodes(), st.data())
def test_pair_is_equal_exactly_while_the_subgoal_stands(episode, data):
    text, subgoals = episode
    now = data.draw(st.integers(0, len(subgoals) - 1))
    previous = data.draw(st.integers(-1, min(now + 1, len(subgoals) - 1)))
    before, after = label_pair(text, subgoals[:now], subgoals[now], previous, "grounded")
    assert after == label(text, subgoals[:now], "grounded")
    assert before == label(text, subgoals[: max(previous, 0)], "grounded")
    assert (before == after) == (max(previous, 0) == now)


def test_subgoal_that_no_call_saw_is_made_up_for():
    unseen_place = [TWICE[0], "", TWICE[2]]
    assert label(goal("red", 2), unseen_place, "simple") == label(goal("red", 2), TWICE[:3], "simple")
    unseen_pick = [TWICE[0], TWICE[1], "", TWICE[3]]
    assert label(goal("red", 2), unseen_pick, "grounded") == label(goal("red", 2), TWICE[:4], "grounded")
    assert label(goal("red", 1), [TWICE[0], ""], "simple", TWICE[4]) == label(goal("red", 1), TWICE[:2], "simple")


@pytest.mark.parametrize(
    ("text", "subgoals", "names"),
    [
        ("put two red cubes into the bin", [], "goal"),
        (goal("red", 1), ["wave at the red cube"], "wave at the red cube"),
        (goal("red", 1), ["pick up the red cube for the umpteenth time"], "umpteenth"),
    ],
)
def test_unknown_words_are_refused(text, subgoals, names):
    with pytest.raises(MemrtError, match=names):
        label(text, subgoals, "simple")


@settings(max_examples=25)
@given(episodes(), st.lists(st.integers(1, 3), min_size=11, max_size=11))
def test_targets_lead_from_each_call_to_the_next(episode, calls_per_subgoal):
    """Rolled out with its own targets, the runtime's memory is always the one the next call was trained on."""
    goal_text, subgoals = episode
    memory = build_memory(load_policy("am_grounded").memory)
    state, previous = memory.initial(), -1
    for segment, calls in zip(range(len(subgoals)), calls_per_subgoal, strict=False):
        for _ in range(calls):
            before, after = label_pair(goal_text, subgoals[:segment], subgoals[segment], previous, "grounded")
            assert state.action_memory == before
            update = memory.update(state, format_reply(Reply(subgoals[segment], after)), goal_text)
            assert (update.subgoal, update.held) == (subgoals[segment], False)
            state, previous = update.state, segment
    assert state.history == tuple(subgoals)
