"""Frames: what was sent arrives, whatever else is sent does no harm, and silence is noticed."""

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.runtime.deploy.frames import PIECE_BYTES, Channel, CutConnectionError
from memrt.runtime.deploy.messages import MESSAGES, Alive, Begin, Have, Install, Refused
from memrt.runtime.errors import MemrtError


@pytest.fixture
def ends():
    read, write = os.pipe()
    yield Channel(read, write, silence_s=0.05), write
    os.close(read)


def test_messages_and_pieces_arrive_in_their_order(ends):
    channel, _ = ends
    sent = [Begin("ll/weights.bin", 7), b"piece", Have({"a": 1}, True, False)]
    for item in sent:
        channel.send_data(item) if isinstance(item, bytes) else channel.send(item)
        channel.send(Alive())
    assert [channel.receive() for _ in sent] == sent


def test_silence_and_the_end_are_told_apart(ends):
    channel, write = ends
    with pytest.raises(CutConnectionError, match=r"nothing was heard for 0\.05 s"):
        channel.receive()
    with pytest.raises(CutConnectionError, match="nothing was heard"):
        channel.lives()
    os.write(write, b"\0\0")
    os.close(write)
    with pytest.raises(CutConnectionError, match="closed"):
        channel.receive()


def test_only_signs_of_life_are_welcome_while_something_runs(ends):
    channel, _ = ends
    channel.send(Alive())
    channel.lives()
    channel.send(Install())
    with pytest.raises(MemrtError, match="a message, out of turn"):
        channel.lives()


def test_nonsense_is_refused_while_something_runs_too(ends):
    channel, write = ends
    os.write(write, struct.pack(">IB", 1, 0) + b"\xc1")
    with pytest.raises(MemrtError, match="frames of memrt's flash protocol"):
        channel.lives()


@pytest.mark.parametrize(
    "header", [struct.pack(">IB", PIECE_BYTES + 1, 1), struct.pack(">IB", 1 << 31, 0), struct.pack(">IB", 0, 2)]
)
def test_what_is_too_long_or_unknown_is_refused_before_it_is_read(ends, header):
    channel, write = ends
    os.write(write, header)
    with pytest.raises(MemrtError, match=r"frames of memrt's flash protocol.*\.bashrc"):
        channel.receive()


@given(st.binary(max_size=200), st.booleans())
def test_nonsense_is_refused_or_cut_and_never_anything_else(content, framed):
    read, write = os.pipe()
    os.write(write, struct.pack(">IB", len(content), 0) + content if framed else content)
    os.close(write)
    channel = Channel(read, read)
    try:
        with pytest.raises((MemrtError, CutConnectionError)):
            list(iter(channel.receive, None))
    finally:
        os.close(read)


def test_a_refusal_travels():
    error = MemrtError("disk", expected="room", found="none", fix="make some")
    assert str(MESSAGES.decode(MESSAGES.encode(Refused.of(error))).error()) == str(error)
