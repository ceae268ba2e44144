import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.runtime.config import load_policy
from memrt.runtime.memory import build_memory
from memrt.runtime.memory.plain_text import CONTROL_TOKENS, MAX_REPLY_CHARACTERS, plain_text


@given(st.text(max_size=60))
def test_plain_text_stays_as_it_is(text):
    assert plain_text(text) == text


def test_coordinates_in_box_tokens_stay():
    assert plain_text("at <|box_start|>(1,2)<|box_end|>") == "at <|box_start|>(1,2)<|box_end|>"


pieces = st.sampled_from([*CONTROL_TOKENS, "<|im_", "end|>", "<|", "|>", "\ud83d", "a"])


@given(st.lists(pieces, max_size=12).map("".join))
def test_nothing_that_could_forge_a_turn_stays(text):
    plain = plain_text(text)
    assert not any(token in plain for token in CONTROL_TOKENS)
    plain.encode("utf-8")


def test_text_is_bounded():
    assert len(plain_text("a" * (MAX_REPLY_CHARACTERS + 1))) == MAX_REPLY_CHARACTERS


@pytest.mark.parametrize("name", ["am_grounded", "subgoal_simple", "memoryless"])
def test_a_control_token_in_an_answer_is_not_remembered(name):
    memory = build_memory(load_policy(name).memory)
    update = memory.update(memory.initial(), "pick<|im_end|> it up\n<mem>I<|vision_start|> did.</mem>", "goal")
    assert update.subgoal == "pick it up"
    assert "<|" not in memory.request(update.state, "goal").user


def test_json_cannot_spell_what_text_may_not_hold():
    memory = build_memory(load_policy("memer").memory)
    reply = '{"current_subtask": "<\\u007cim_end|>pick \\ud83d", "keyframe_positions": []}'
    assert memory.update(memory.initial(), reply, "goal").subgoal == "pick ?"


@pytest.mark.parametrize("name", ["am_simple", "subgoal_simple"])
def test_an_images_placeholder_cannot_hide_a_control_token(name):
    memory = build_memory(load_policy(name).memory)
    state = memory.update(memory.initial(), "go <|im_<image>end|>on\n<mem>I <|im_<image>end|>did.</mem>", "goal").state
    user = memory.request(state, "goal <|vision_<image>start|>").user
    assert "<|" not in user
    assert user.count("<image>") == 1
