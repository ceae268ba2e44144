"""Prompts are part of a checkpoint: a changed character is another policy. The golden files hold them whole."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.runtime.config import MemoryConfig, load_policy
from memrt.runtime.memory import MemoryState, build_memory

GOLDEN = Path(__file__).parent / "golden"
GOAL = "pick up the red cube and place it on the target, repeating this action two times, then press the button to stop"
SUBGOALS = {
    "grounded": ("pick up the red cube <120, 88> for the first time", "place the red cube onto the target <140, 75>"),
    "simple": ("pick up the red cube for the first time", "place the red cube onto the target"),
}


def golden(name: str) -> str:
    return (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def shown(config: MemoryConfig, state: MemoryState) -> str:
    request = build_memory(config).request(state, GOAL)
    return f"SYSTEM\n{request.system}\nUSER\n{request.user}\n"


def later(config: MemoryConfig) -> MemoryState:
    first, second = SUBGOALS[config.subgoal_style]
    where = " <140, 75>" if config.subgoal_style == "grounded" else ""
    state = replace(
        build_memory(config).initial(),
        history=(first, second),
        action_memory=f"I picked up the red cube once and placed it on the target{where} once.",
        subgoal=second,
    )
    return replace(state, spatial_memory="The red cube lies on the target <140, 75>.") if config.spatial else state


TEXT_POLICIES = (
    "am_grounded",
    "am_simple",
    "am_sm_grounded",
    "am_sm_simple",
    "language_memory",
    "memoryless",
    "subgoal_grounded",
    "subgoal_simple",
)


@pytest.mark.parametrize("name", TEXT_POLICIES)
def test_packaged_policies(name):
    config = load_policy(name).memory
    assert shown(config, build_memory(config).initial()) == golden(f"{name}_first_call")
    assert shown(config, later(config)) == golden(f"{name}_later_call")


@pytest.mark.parametrize("name", ["am_grounded", "am_simple", "am_sm_grounded", "am_sm_simple"])
def test_with_history(name):
    config = msgspec.structs.replace(load_policy(name).memory, history=True)
    assert shown(config, build_memory(config).initial()) == golden(f"{name}_with_history_first_call")
    assert shown(config, later(config)) == golden(f"{name}_with_history_later_call")


def test_memory_only_mode_may_keep_the_initial_turn():
    config = msgspec.structs.replace(load_policy("am_simple").memory, keep_initial_history=True)
    first = build_memory(config).request(build_memory(config).initial(), GOAL).user.splitlines()
    assert first[1] == "This is the initial turn for prediction"
    assert shown(config, later(config)) == golden("am_simple_later_call")


def test_numbering_goes_on_after_dropped_entries():
    config = msgspec.structs.replace(load_policy("am_simple").memory, history=True)
    state = replace(later(config), history_dropped=7)
    assert "are: 8. pick up the red cube for the first time; 9. place" in build_memory(config).request(state, GOAL).user


texts = st.text(st.sampled_from("<image>{}goalX 1\n"), max_size=40) | st.just("<im<image>age>")


@given(texts, texts, texts, st.booleans())
def test_nothing_remembered_can_add_an_image_or_break_the_template(goal, memory, subgoal, history):
    config = msgspec.structs.replace(load_policy("am_grounded").memory, history=history)
    state = MemoryState(history=(subgoal,), action_memory=memory, subgoal=subgoal)
    user = build_memory(config).request(state, goal).user
    assert user.count("<image>") == 1
    assert user.endswith("<image>What's the next grounded language subgoal based on current observation?")
    if "<image>" not in memory:
        assert f"<mem>{memory}</mem>" in user


def test_memer_shows_keyframes_then_recent_frames():
    config = load_policy("memer").memory
    memory = build_memory(config)
    first, second = (
        '{"current_subtask": "pick", "keyframe_positions": [1]}',
        '{"keyframe_positions": [2, 2, 4], "current_subtask": "place"}',
    )
    state = memory.initial()
    texts = []
    for recent, reply in (((0,), first), ((24, 32, 40, 48), second), ((56, 64, 72, 80), "")):
        request = memory.request(state, GOAL, recent)
        assert request.recent == recent
        assert request.user.count("<image>") == len(request.keyframes) + len(recent)
        texts.append(f"SYSTEM\n{request.system}\nUSER\n{request.user}\n")
        state = memory.update(state, reply, GOAL, recent).state
    assert request.keyframes == (0, 32, 48)
    assert texts[0] == golden("memer_first_call")
    assert texts[2] == golden("memer_later_call")
    assert texts[2].index("1: ") > texts[2].index("<image><image><image>")  # what changes least comes first


def test_a_goal_cannot_add_an_image_to_memers_prompt():
    memory = build_memory(load_policy("memer").memory)
    request = memory.request(memory.initial(), "pick <image> up <ima<image>ge>", (0, 5))
    assert request.user.count("<image>") == 2
