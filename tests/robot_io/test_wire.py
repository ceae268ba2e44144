"""The control messages and their order: nothing received can do more than be counted."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_examples import CONTROL

from memrt.robot_io.link.endpoints import Endpoints
from memrt.robot_io.link.receiving import InOrder, Receiver, dropped, other_version
from memrt.robot_io.link.wire import MAX_MESSAGE_BYTES, VERSION, FromNode, Hello, Report, ToNode, encode
from memrt.runtime.errors import MemrtError


@pytest.mark.parametrize("name", CONTROL)
def test_every_message_comes_out_as_it_went_in(name):
    message, kinds = CONTROL[name]
    assert Receiver(kinds).decode(encode(message)) == message


@given(st.binary(max_size=300))
def test_noise_is_counted_and_never_raises(data):
    for kinds in (ToNode, FromNode, Report):
        receiver = Receiver(kinds)
        if receiver.decode(data) is None:
            assert receiver.dropped.total() == 1


@given(st.sampled_from(sorted(CONTROL)), st.integers(0, 10_000), st.integers(0, 255))
def test_one_changed_byte_gives_a_valid_message_or_a_count(name, position, value):
    message, kinds = CONTROL[name]
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
        ["hello", 7, 1, VERSION, "x" * 2000],
        ["heartbeat", 7, 4, 2**62 + 1],  # a time the core could not add to
        {"kind": "stop"},
        [[[[]]]],
        None,
    ],
)
def test_malformed_messages_are_dropped(bad):
    receiver = Receiver(ToNode)
    assert receiver.decode(msgspec.msgpack.encode(bad)) is None
    assert receiver.dropped == {"malformed": 1}


def test_deep_nesting_and_size_are_bounded():
    receiver = Receiver(ToNode)
    assert receiver.decode(b"\x91" * (MAX_MESSAGE_BYTES - 1)) is None
    assert receiver.decode(b"\x00" * (MAX_MESSAGE_BYTES + 1)) is None
    assert receiver.dropped == {"malformed": 1, "oversized": 1}


def test_a_greeting_of_another_version_is_known_whatever_it_says_further():
    later = msgspec.msgpack.encode(["hello", 7, 1, VERSION + 1, {"new": True}, "more"])
    receiver = Receiver(ToNode)
    assert receiver.decode(later) is None
    assert receiver.dropped == {"wrong version": 1}
    assert other_version(later).version == VERSION + 1
    assert other_version(encode(Hello(7, 1, VERSION, ""))) is None
    assert other_version(msgspec.msgpack.encode(["hello", -7, 1, VERSION + 1])) is None
    assert dropped("control", receiver.dropped) == {"control dropped: wrong version": 1}


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
