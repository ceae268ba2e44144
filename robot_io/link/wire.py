"""The link's control messages: msgpack arrays, each tagged with its kind, each carrying session and sequence number.

Three channels, each a socket of its own (`endpoints.py`): *control* (client DEALER to node ROUTER: hello, commands,
heartbeats, and their answers), *chunks* (client PUSH to node PULL) and *state* (node PUB to client SUB). What is sent
again and again, chunks and states, is fixed bytes (`streams.py`). `WIRE.md` describes all of it for other languages.

Times are CLOCK_MONOTONIC nanoseconds of the *node*; the client converts. Nothing received can raise past `decode`: a
message is a known struct or it is None, and the reason is counted.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

VERSION = 2
MAX_MESSAGE_BYTES = 65_536  # a longer message is refused unread
MAX_TRANSPORT_BYTES = 2 * MAX_MESSAGE_BYTES  # ZMQ_MAXMSGSIZE: beyond it the transport itself drops the peer
MAX_TIME_NS = 2**62  # sums of two still fit the core's 64 bits
MAX_TEXT = 1024

Sequence = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Session = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Time = Annotated[int, msgspec.Meta(ge=-MAX_TIME_NS, le=MAX_TIME_NS)]
Version = Annotated[int, msgspec.Meta(ge=0, le=255)]  # one byte of the streams
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
CommandKind = Literal["arm", "stop", "resume", "home"]
Mode = Literal["disarmed", "running", "stopped", "fault"]  # the values of RobotMode


class Message(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What every message carries. `sequence` grows with every message of one sender on one channel."""

    session: Session
    sequence: Sequence


class Hello(Message, tag="hello", frozen=True):
    """Client to node: may I begin session `session`, which has never been used before? It is 1 or more.

    In every version of the link a hello begins with these three: session, sequence, version.
    """

    version: Version
    computer: Text


class Welcome(Message, tag="welcome", frozen=True):
    """Node to client: yes. `rings` names the shared-memory ring of each camera, for clients on the same computer.

    `spaces` are the action spaces (`ActionSpace`) that the node takes chunks in, `speed` the highest factor that
    `Configure` may ask for, 0 where the node's limits are fixed.
    """

    version: Version
    computer: Text
    robot: Text
    goal: Text
    rings: Annotated[dict[Text, Text], msgspec.Meta(max_length=16)]
    spaces: Annotated[list[Annotated[int, msgspec.Meta(ge=0, le=255)]], msgspec.Meta(min_length=1, max_length=16)]
    speed: Annotated[float, msgspec.Meta(ge=0, le=1)]


class Command(Message, tag="command", frozen=True):
    """Client to node, answered by `Ack`. A repeated sequence number is answered again and not executed again.

    `stops` is the number of stops the client had asked for when this command was given: a resume that was given
    before a stop, and arrives after it, loses.
    """

    kind: CommandKind
    stops: Sequence


class Configure(Message, tag="configure", frozen=True):
    """Client to node, answered by `Ack` and executed once, like a command: a factor on the arm's limits of speed.

    What else a robot needs to be told belongs to its node's start, where nobody on the network can loosen it.
    """

    speed: Annotated[float, msgspec.Meta(gt=0, le=1)]


class Ack(Message, tag="ack", frozen=True):
    """Node to client: command or configuration `sequence` is done (`error` is "") or refused (`error` says why).

    `mode` is the robot's, until a state with a sequence number above `after_state` says otherwise. The same in every
    version of the link, because it also answers the hello of another version.
    """

    error: Text
    mode: Mode
    after_state: Sequence


class Heartbeat(Message, tag="heartbeat", frozen=True):
    """Client to node, every few milliseconds: I live. `t_client_ns` comes back, so that it also measures the clocks."""

    t_client_ns: Time


class Pulse(Message, tag="pulse", frozen=True):
    """Node to client: the answer to a heartbeat, with the node's own time."""

    t_client_ns: Time
    t_node_ns: Time


class Report(Message, tag="report", frozen=True):
    """Node to client, a few times a second: counts and figures for people and for the record.

    `reason` belongs to the states' outcome, `fault` to their mode FAULT. A report with changed texts is sent at once,
    before the state that they explain; both carry sequence numbers of one count.
    """

    reason: Text
    fault: Text
    values: Annotated[dict[Text, float], msgspec.Meta(max_length=256)]
    texts: Annotated[dict[Text, Text], msgspec.Meta(max_length=16)]


ToNode = Hello | Command | Configure | Heartbeat
FromNode = Welcome | Ack | Pulse

_encoder = msgspec.msgpack.Encoder()


def encode(message: Message) -> bytes:
    """The bytes of one message."""
    return _encoder.encode(message)
