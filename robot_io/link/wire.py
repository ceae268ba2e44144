"""The link's wire format: msgpack arrays, each tagged with its kind, each carrying session and sequence number.

Three channels, each a socket of its own (`Endpoints`): *control* (client DEALER to node ROUTER: hello, commands,
heartbeats, and their answers), *chunks* (client PUSH to node PULL) and *state* (node PUB to client SUB). Every message
is `[kind, session, sequence, ...]`. The version travels in `Hello` and `Welcome` only: a node and a client that differ
in it never get as far as a session. Times are CLOCK_MONOTONIC nanoseconds of the *node*; the client converts.

Nothing received can raise past `decode`: a message is a known struct or it is None, and the reason is counted.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, TypeVar

import msgspec
import numpy as np

from memrt.runtime.errors import MemrtError
from memrt.runtime.types import ARM_JOINTS, PROPRIOCEPTION_DIM, FloatArray

VERSION = 1
MAX_MESSAGE_BYTES = 65_536  # the largest chunk below has 8 KiB; a longer message is refused unread
MAX_TRANSPORT_BYTES = 1 << 20  # ZMQ_MAXMSGSIZE: beyond it the transport itself drops the peer
MAX_HORIZON = 128  # the seam's own bound
MAX_TEXT = 1024

Sequence = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Session = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Time = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]  # ns; sums of two still fit the core's 64 bits
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Joints = Annotated[list[float], msgspec.Meta(min_length=ARM_JOINTS, max_length=ARM_JOINTS)]
CommandKind = Literal["arm", "stop", "resume", "home"]


class Message(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What every message carries. `sequence` grows with every message of one sender on one channel."""

    session: Session
    sequence: Sequence


class Hello(Message, tag="hello", frozen=True):
    """Client to node: may I begin session `session`, which has never been used before?"""

    version: int
    computer: Text


class Welcome(Message, tag="welcome", frozen=True):
    """Node to client: yes. `rings` names the shared-memory ring of each camera, for clients on the same computer."""

    version: int
    computer: Text
    robot: Text
    goal: Text
    rings: Annotated[dict[str, str], msgspec.Meta(max_length=16)]


class Command(Message, tag="command", frozen=True):
    """Client to node, answered by `Ack`. A repeated sequence number is answered again and not executed again.

    `stops` is the number of stops the client had asked for when this command was given: a resume that was given
    before a stop, and arrives after it, loses.
    """

    kind: CommandKind
    stops: Sequence


class Ack(Message, tag="ack", frozen=True):
    """Node to client: command `sequence` is done (`error` is "") or refused (`error` says why).

    `mode` is the robot's, until a state with a sequence number above `after_state` says otherwise.
    """

    error: Text
    mode: Text
    after_state: Sequence


class Heartbeat(Message, tag="heartbeat", frozen=True):
    """Client to node, every few milliseconds: I live. `t_client_ns` comes back, so that it also measures the clocks."""

    t_client_ns: Time


class Pulse(Message, tag="pulse", frozen=True):
    """Node to client: the answer to a heartbeat, with the node's own time."""

    t_client_ns: Time
    t_node_ns: Time


class Chunk(Message, tag="chunk", frozen=True):
    """Client to node: `actions` is float64 little-endian [horizon, 8], action i meant for `t0_ns + i * dt_ns`."""

    revision: Sequence
    t0_ns: Time
    dt_ns: Annotated[int, msgspec.Meta(gt=0, le=10_000_000_000)]
    actions: bytes

    def matrix(self) -> FloatArray | None:
        """The actions as float64 [horizon, 8], or None when the bytes are not a chunk of 1 to 128 actions."""
        row = PROPRIOCEPTION_DIM * 8
        horizon, rest = divmod(len(self.actions), row)
        if rest or not 1 <= horizon <= MAX_HORIZON:
            return None
        return np.frombuffer(self.actions, dtype="<f8").reshape(horizon, PROPRIOCEPTION_DIM).astype(np.float64)


class State(Message, tag="state", frozen=True):
    """Node to client, at 100 Hz: where the robot is and what it does with the chunks."""

    t_ns: Time
    mode: Text
    q: Joints
    gripper: float
    remaining_ns: Time
    revision: Sequence
    refused_in_a_row: Sequence
    outcome: Literal["running", "success", "failure"]
    reason: Text
    fault: Text


class Report(Message, tag="report", frozen=True):
    """Node to client, a few times a second: counts and figures for people and for the record."""

    values: Annotated[dict[str, float], msgspec.Meta(max_length=64)]
    texts: Annotated[dict[str, str], msgspec.Meta(max_length=16)]


ToNode = Hello | Command | Heartbeat
FromNode = Welcome | Ack | Pulse
Published = State | Report

_encoder = msgspec.msgpack.Encoder()
MessageT = TypeVar("MessageT")


def encode(message: Message) -> bytes:
    """The bytes of one message."""
    return _encoder.encode(message)


class Receiver:
    """Decodes one channel's messages and counts what it drops: the count is all that a bad message can cause."""

    def __init__(self, kinds: object) -> None:
        self._decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(kinds)
        self.dropped: Counter[str] = Counter()

    def decode(self, data: bytes) -> Message | None:
        """The message, or None when it is oversized or malformed."""
        if len(data) > MAX_MESSAGE_BYTES:
            self.dropped["oversized"] += 1
            return None
        try:
            return self._decoder.decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            self.dropped["malformed"] += 1
            return None


class InOrder:
    """Lets the messages of one sender through that are newer than all before them."""

    def __init__(self) -> None:
        self._last = -1
        self.dropped: Counter[str] = Counter()

    def accept(self, sequence: int) -> bool:
        """Whether this message is new; a repeated or overtaken one is counted and dropped."""
        if sequence > self._last:
            self._last = sequence
            return True
        self.dropped["duplicate" if sequence == self._last else "old"] += 1
        return False


class Endpoints(msgspec.Struct, frozen=True):
    """The three sockets' addresses, made of one: `ipc:///path` gets suffixes, `tcp://host:port` the next two ports."""

    control: str
    chunks: str
    state: str

    @classmethod
    def of(cls, base: str) -> Endpoints:
        """Raises MemrtError for anything but `ipc:///absolute/path` and `tcp://host:port`."""
        if base.startswith("ipc:///"):
            return cls(f"{base}.control", f"{base}.chunks", f"{base}.state")
        host, _, port = base.removeprefix("tcp://").rpartition(":")
        if base.startswith("tcp://") and host and port.isdigit() and 0 < int(port) < 65_534:
            return cls(*(f"tcp://{host}:{int(port) + offset}" for offset in range(3)))
        raise MemrtError(
            "robot endpoint",
            expected="ipc:///absolute/path or tcp://host:port",
            found=repr(base),
            fix="correct the endpoint in the robot's YAML",
        )
