"""The wire format: fixed bytes, and nothing received can do more than be counted."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.robot_io.link.wire import (
    MAX_MESSAGE_BYTES,
    VERSION,
    Ack,
    Chunk,
    Command,
    Endpoints,
    FromNode,
    Heartbeat,
    Hello,
    InOrder,
    Published,
    Pulse,
    Receiver,
    Report,
    State,
    ToNode,
    Welcome,
    encode,
)
from memrt.runtime.errors import MemrtError

GOLDEN = Path(__file__).parent / "golden"
ACTIONS = np.arange(16, dtype="<f8").reshape(2, 8) / 8
MESSAGES = {
    "hello": (Hello(7, 1, VERSION, "a computer"), ToNode),
    "welcome": (Welcome(7, 1, VERSION, "a computer", "sim", "press the button", {"front": "ring-front"}), FromNode),
    "command": (Command(7, 2, "stop", 3), ToNode),
    "ack": (Ack(7, 2, "", "stopped", 41), FromNode),
    "heartbeat": (Heartbeat(7, 3, 123_456_789), ToNode),
    "pulse": (Pulse(7, 3, 123_456_789, 987_654_321), FromNode),
    "chunk": (Chunk(7, 4, 5, 1_000_000_000, 50_000_000, ACTIONS.tobytes()), Chunk),
    "state": (State(7, 42, 10, "running", [0.5] * 7, 1.0, 800, 5, 0, "running", "", ""), Published),
    "report": (Report(7, 43, {"control ticks": 9.0}, {"last refusal": "too late"}), Published),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_the_bytes_of_version_1_never_change(name):
    message, kinds = MESSAGES[name]
    golden = (GOLDEN / f"{name}.msgpack").read_bytes()
    assert encode(message) == golden
    assert Receiver(kinds).decode(golden) == message


def test_a_chunk_carries_its_actions_exactly():
    chunk = MESSAGES["chunk"][0]
    assert np.array_equal(chunk.matrix(), ACTIONS)
    for size in (0, 8, 65, 129 * 64):
        assert Chunk(7, 4, 5, 0, 1, b"x" * size).matrix() is None


@given(st.binary(max_size=300))
def test_noise_is_counted_and_never_raises(data):
    for kinds in (ToNode, FromNode, Chunk, Published):
        receiver = Receiver(kinds)
        if receiver.decode(data) is None:
            assert receiver.dropped.total() == 1


@given(st.sampled_from(sorted(MESSAGES)), st.integers(0, 10_000), st.integers(0, 255))
def test_one_changed_byte_gives_a_valid_message_or_a_count(name, position, value):
    message, kinds = MESSAGES[name]
    data = bytearray(encode(message))
    data[position % len(data)] = value
    receiver = Receiver(kinds)
    decoded = receiver.decode(bytes(data))
    assert (decoded is None) == (receiver.dropped.total() == 1)
    if decoded is not None:
        assert msgspec.msgpack.decode(encode(decoded), type=kinds) == decoded


@pytest.mark.parametrize(
    "bad",
    [
        ["command", 7, 2, "explode", 0],  # no such command
        ["command", -7, 2, "stop", 0],  # no such session
        ["command", 7, 2**63, "stop", 0],
        ["command", 7, 2, "stop", 0, "more"],
        ["command", 7, 2],
        ["hello", 7, 1, 1, "x" * 2000],
        ["chunk", 7, 4, 5, 2**62 + 1, 50, b""],  # a time the core could not add to
        ["chunk", 7, 4, 5, 0, 0, b""],  # no duration
        {"kind": "stop"},
        [[[[]]]],
        None,
    ],
)
def test_malformed_messages_are_dropped(bad):
    receiver = Receiver(ToNode | Chunk)
    assert receiver.decode(msgspec.msgpack.encode(bad)) is None
    assert receiver.dropped == {"malformed": 1}


def test_deep_nesting_and_size_are_bounded():
    receiver = Receiver(ToNode)
    assert receiver.decode(b"\x91" * (MAX_MESSAGE_BYTES - 1)) is None
    assert receiver.decode(b"\x00" * (MAX_MESSAGE_BYTES + 1)) is None
    assert receiver.dropped == {"malformed": 1, "oversized": 1}


@given(st.lists(st.integers(0, 20), max_size=40))
def test_only_newer_messages_pass(sequences):
    order = InOrder()
    accepted = [number for number in sequences if order.accept(number)]
    assert accepted == sorted(set(accepted))
    assert accepted == [n for i, n in enumerate(sequences) if n > max(sequences[:i], default=-1)]
    assert order.dropped.total() == len(sequences) - len(accepted)


def test_endpoints_follow_from_one_address():
    assert Endpoints.of("tcp://10.0.0.2:5550") == Endpoints(
        "tcp://10.0.0.2:5550", "tcp://10.0.0.2:5551", "tcp://10.0.0.2:5552"
    )
    assert Endpoints.of("ipc:///run/robot").chunks == "ipc:///run/robot.chunks"
    for bad in ("", "ipc://relative", "tcp://host", "tcp://:1", "udp://h:1", "tcp://h:65535"):
        with pytest.raises(MemrtError, match="robot endpoint"):
            Endpoints.of(bad)
