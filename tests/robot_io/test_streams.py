"""Chunks and states as fixed bytes: they come out as they went in, and nothing else comes out at all."""

import struct
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_examples import CHUNK, STATE

from memrt.robot_io.link.streams import (
    CHUNK_HEADER,
    MAX_STREAM_BYTES,
    Chunk,
    State,
    decode_chunk,
    decode_state,
    encode_chunk,
    encode_state,
    is_stream,
)
from memrt.robot_io.link.streams import STATE as STATE_LAYOUT
from memrt.robot_io.link.wire import MAX_TIME_NS, VERSION
from memrt.runtime.types import ActionSpace, RobotMode

numbers = st.integers(0, 2**63 - 1)
times = st.integers(-MAX_TIME_NS, MAX_TIME_NS)
finite = st.floats(allow_nan=False, allow_infinity=False)


def same(a, b) -> bool:
    """Whether two chunks or states are equal, NaNs included."""
    return type(a) is type(b) and all(
        np.array_equal(getattr(a, f.name), getattr(b, f.name), equal_nan=True)
        if isinstance(getattr(a, f.name), np.ndarray)
        else getattr(a, f.name) == getattr(b, f.name)
        for f in fields(a)
    )


@st.composite
def chunks(draw) -> Chunk:
    horizon = draw(st.integers(1, 128))
    return Chunk(
        session=draw(numbers),
        sequence=draw(numbers),
        sent_ns=draw(times),
        deadline_ns=draw(times),
        t0_ns=draw(times),
        dt_ns=draw(st.integers(1, 10_000_000_000)),
        revision=draw(numbers),
        space=draw(st.sampled_from(ActionSpace)),
        actions=np.tile(draw(st.lists(st.floats(), min_size=8, max_size=8)), (horizon, 1)),
    )


@st.composite
def states(draw) -> State:
    return State(
        session=draw(numbers),
        sequence=draw(numbers),
        sent_ns=draw(times),
        deadline_ns=draw(times),
        t_ns=draw(times),
        mode=draw(st.sampled_from(RobotMode)),
        outcome=draw(st.sampled_from(["running", "success", "failure"])),
        proprioception=np.array(draw(st.lists(finite, min_size=8, max_size=8))),
        remaining_ns=draw(st.integers(0, MAX_TIME_NS)),
        revision=draw(numbers),
        refused_in_a_row=draw(st.integers(0, 2**32 - 1)),
    )


@given(chunks())
def test_a_chunk_comes_out_as_it_went_in(chunk):
    data = encode_chunk(chunk)
    assert len(data) == 64 + 64 * len(chunk.actions) <= MAX_STREAM_BYTES
    assert is_stream(data)
    assert same(decode_chunk(data), chunk)
    assert decode_state(data) == "malformed"


@given(states())
def test_a_state_comes_out_as_it_went_in(state):
    data = encode_state(state)
    assert len(data) == 128
    assert is_stream(data)
    assert same(decode_state(data), state)
    assert decode_chunk(data) == "malformed"


@given(st.binary(max_size=300))
def test_noise_has_a_reason(data):
    for decode in (decode_chunk, decode_state):
        assert decode(data) in ("malformed", "wrong version")


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_one_changed_byte_gives_a_sound_message_or_a_reason(position, value):
    for decode, encode, message in ((decode_chunk, encode_chunk, CHUNK), (decode_state, encode_state, STATE)):
        data = bytearray(encode(message))
        data[position % len(data)] = value
        decoded = decode(bytes(data))
        if isinstance(decoded, Chunk | State):
            assert encode(decoded) == bytes(data)
        else:
            assert decoded in ("malformed", "wrong version")


def patched(data: bytes, layout: np.dtype, name: str, value) -> bytes:
    """The bytes with one field overwritten."""
    kind, offset = layout.fields[name][:2]
    raw = np.array(value, kind.base).tobytes()
    return data[:offset] + raw + data[offset + len(raw) :]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", 2),
        ("kind", 0x95),
        ("horizon", 0),
        ("horizon", 1),  # two actions follow
        ("horizon", 129),
        ("space", 3),
        ("reserved", 1),
        ("session", 2**63),
        ("sequence", 2**64 - 1),
        ("revision", 2**63),
        ("sent_ns", MAX_TIME_NS + 1),
        ("deadline_ns", -MAX_TIME_NS - 1),
        ("t0_ns", 2**63 - 1),
        ("dt_ns", 0),
        ("dt_ns", -1),
        ("dt_ns", 10_000_000_001),
    ],
)
def test_a_chunk_with_an_impossible_field_is_malformed(name, value):
    assert decode_chunk(patched(encode_chunk(CHUNK), CHUNK_HEADER, name, value)) == "malformed"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", 1),
        ("mode", 4),
        ("outcome", 3),
        ("session", 2**63),
        ("t_ns", MAX_TIME_NS + 1),
        ("remaining_ns", -1),
        ("proprioception", [np.nan] * 8),
        ("proprioception", [0.0] * 7 + [np.inf]),
    ],
)
def test_a_state_with_an_impossible_field_is_malformed(name, value):
    assert decode_state(patched(encode_state(STATE), STATE_LAYOUT, name, value)) == "malformed"


def test_length_and_version_are_checked_first():
    chunk, state = encode_chunk(CHUNK), encode_state(STATE)
    assert decode_chunk(chunk + b"\0") == decode_chunk(chunk[:-1]) == decode_chunk(chunk[:63]) == "malformed"
    assert decode_state(state + b"\0") == decode_state(state[:-1]) == decode_state(b"") == "malformed"
    assert decode_chunk(b"\x01" * (MAX_STREAM_BYTES + 1)) == "oversized"
    other = struct.pack("B", VERSION + 1)
    for decode, data in ((decode_chunk, chunk), (decode_state, state)):
        assert decode(data[:1] + other + data[2:]) == "wrong version"
        assert decode(data[:1] + other) == "wrong version"  # whatever else that version has changed


def test_the_robot_judges_the_values_of_actions():
    wild = replace(CHUNK, actions=np.full((1, 8), np.nan))
    assert same(decode_chunk(encode_chunk(wild)), wild)
