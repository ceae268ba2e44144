from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.runtime.memory.keyframe_reply import KeyframeReply, format_keyframe_reply, parse_keyframe_reply


@pytest.mark.parametrize(
    ("text", "subtask", "positions"),
    [
        ('{"current_subtask": "open the drawer", "keyframe_positions": [1, 8]}', "open the drawer", (1, 8)),
        ('{"current_primitive": "wipe", "keyframe_positions": []}', "wipe", ()),
        ('{"current_subtask": "wipe", "keyframe_positions": null}', "wipe", ()),
        ('{"current_subtask": " wipe "}', "wipe", ()),
        ('{"current_subtask": "a", "keyframe_positions": [2.0, "3", " 4 ", 2]}', "a", (2, 3, 4, 2)),
        ('{"current_subtask": "a", "keyframe_positions": [-1, 99]}', "a", (-1, 99)),
        ('Here you are:\n```json\n{"current_subtask": "a", "keyframe_positions": [1]}\n```\nDone.', "a", (1,)),
        ('The answer is {"current_subtask": "put {it} \\"there\\"}", "keyframe_positions": [1]} I think', None, (1,)),
        ('{"current_subtask": "a", "keyframe_positions": [1]} {"current_subtask": "b"}', "a", (1,)),
    ],
)
def test_replies(text, subtask, positions):
    assert parse_keyframe_reply(text) == KeyframeReply(subtask or 'put {it} "there"}', positions)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pick up the cube",
        "[1, 2]",
        '{"keyframe_positions": [1]}',
        '{"current_subtask": 3, "keyframe_positions": [1]}',
        '{"current_subtask": "a", "keyframe_positions": 1}',
        '{"current_subtask": "a", "keyframe_positions": [true]}',
        '{"current_subtask": "a", "keyframe_positions": [1.5]}',
        '{"current_subtask": "a", "keyframe_positions": [NaN]}',
        '{"current_subtask": "a", "keyframe_positions": ["one"]}',
        '{"current_subtask": "a", "keyframe_positions": [[1]]}',
        '{"current_subtask": "a", "keyframe_positions": [1',
        '{"a": ' * 5000,
        '{"current_subtask": "a", "keyframe_positions": [' + "9" * 5000 + "]}",
    ],
)
def test_what_is_no_reply(text):
    assert parse_keyframe_reply(text) is None


def test_a_rejected_candidate_does_not_hide_the_next():
    text = '```\n{"current_subtask": "a", "keyframe_positions": [true]}\n```\n```{"current_subtask": "b"}```'
    assert parse_keyframe_reply(text) == KeyframeReply("b", ())


@given(st.text(), st.lists(st.integers(0, 999_999_999)))
def test_round_trip(subtask, positions):
    reply = KeyframeReply(subtask.strip(), tuple(positions))
    assert parse_keyframe_reply(format_keyframe_reply(reply)) == reply
    assert parse_keyframe_reply(f"Sure: {format_keyframe_reply(reply)}\nAnything else?") == reply


@given(st.text(alphabet='{}[]"\\:,` jsontrue1.0current_subtask') | st.text())
def test_any_text_is_read(text):
    reply = parse_keyframe_reply(text)
    assert reply is None or isinstance(reply.subtask, str)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_positions_are_integers_or_the_reply_is_refused(value):
    reply = parse_keyframe_reply(json.dumps({"current_subtask": "a", "keyframe_positions": value}))
    assert reply is None or all(type(position) is int for position in reply.positions)
