"""The link's repeated messages: chunks (client to node) and states (node to client, 100 Hz), fixed little-endian bytes.

`WIRE.md` describes them for other languages, `runtime/core/link_wire.hpp` is the same layout in C++, and the tests hold
all three to the same bytes. Both begin alike: kind, version, six bytes of the kind's own, session, sequence, and two
times on the *node's* CLOCK_MONOTONIC: when the message was sent and when it is too late to heed it.

Decoding never raises: what comes in is a message or the reason why it is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from memrt.robot_io.link.wire import MAX_TIME_NS, VERSION
from memrt.runtime.types import PROPRIOCEPTION_DIM, ActionSpace, FloatArray, RobotMode

CHUNK_KIND, STATE_KIND = 1, 2
MAX_HORIZON = 128  # the seam's own bound
MAX_DT_NS = 10_000_000_000
MAX_NUMBER = 2**63 - 1  # of sessions, sequence numbers and revisions: they fit signed 64 bits

_HEADER_END = [("session", "<u8"), ("sequence", "<u8"), ("sent_ns", "<i8"), ("deadline_ns", "<i8")]
CHUNK_HEADER = np.dtype(
    [
        ("kind", "u1"),
        ("version", "u1"),
        ("horizon", "<u2"),
        ("space", "u1"),
        ("reserved", "u1", (3,)),
        *_HEADER_END,
        ("t0_ns", "<i8"),
        ("dt_ns", "<i8"),
        ("revision", "<u8"),
    ]
)  # and then `horizon` actions, each 8 float64
STATE = np.dtype(
    [
        ("kind", "u1"),
        ("version", "u1"),
        ("mode", "u1"),
        ("outcome", "u1"),
        ("refused_in_a_row", "<u4"),
        *_HEADER_END,
        ("t_ns", "<i8"),
        ("remaining_ns", "<i8"),
        ("revision", "<u8"),
        ("proprioception", "<f8", (PROPRIOCEPTION_DIM,)),
    ]
)
ACTION_BYTES = PROPRIOCEPTION_DIM * 8
MAX_STREAM_BYTES = CHUNK_HEADER.itemsize + MAX_HORIZON * ACTION_BYTES

MODES = (RobotMode.DISARMED, RobotMode.RUNNING, RobotMode.STOPPED, RobotMode.FAULT)
Outcome = Literal["running", "success", "failure"]
OUTCOMES: tuple[Outcome, ...] = ("running", "success", "failure")
Unreadable = Literal["oversized", "malformed", "wrong version"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chunk:
    """`actions` float64 [horizon, 8] in the units of `space`; action i is meant for `t0_ns + i * dt_ns`."""

    session: int
    sequence: int
    sent_ns: int
    deadline_ns: int
    t0_ns: int
    dt_ns: int
    revision: int
    space: ActionSpace
    actions: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class State:
    """Where the robot was at `t_ns` (`proprioception` float64 [8]), and what it does with the chunks.

    `session` is 0 before the first one. `remaining_ns` is how much accepted future is left, `revision` the subgoal's
    of the newest accepted chunk, `refused_in_a_row` how many of the newest chunks were refused or came too late.
    """

    session: int
    sequence: int
    sent_ns: int
    deadline_ns: int
    t_ns: int
    mode: RobotMode
    outcome: Outcome
    proprioception: FloatArray
    remaining_ns: int
    revision: int
    refused_in_a_row: int


def encode_chunk(chunk: Chunk) -> bytes:
    """64 bytes, and 64 more per action."""
    header = (
        *(CHUNK_KIND, VERSION, len(chunk.actions), chunk.space, (0, 0, 0)),
        *(chunk.session, chunk.sequence, chunk.sent_ns, chunk.deadline_ns),
        *(chunk.t0_ns, chunk.dt_ns, chunk.revision),
    )
    return np.array(header, CHUNK_HEADER).tobytes() + chunk.actions.astype("<f8").tobytes()


def encode_state(state: State) -> bytes:
    """128 bytes."""
    fields = (
        *(STATE_KIND, VERSION, MODES.index(state.mode), OUTCOMES.index(state.outcome), state.refused_in_a_row),
        *(state.session, state.sequence, state.sent_ns, state.deadline_ns),
        *(state.t_ns, state.remaining_ns, state.revision, state.proprioception),
    )
    return np.array(fields, STATE).tobytes()


def decode_chunk(data: bytes) -> Chunk | Unreadable:
    """The chunk, or why these bytes are none. Its actions may be of any value: judging them is the robot's business."""
    if unreadable := _unreadable(data, CHUNK_KIND, CHUNK_HEADER.itemsize):
        return unreadable
    fields = np.frombuffer(data, CHUNK_HEADER, 1)[0].item()
    _, _, horizon, space, reserved, session, sequence, sent_ns, deadline_ns, t0_ns, dt_ns, revision = fields
    sound = (
        1 <= horizon <= MAX_HORIZON
        and len(data) == CHUNK_HEADER.itemsize + horizon * ACTION_BYTES
        and space <= max(ActionSpace)
        and not any(reserved)
        and _numbers(session, sequence, revision)
        and _times(sent_ns, deadline_ns, t0_ns)
        and 0 < dt_ns <= MAX_DT_NS
    )
    if not sound:
        return "malformed"
    actions = np.frombuffer(data, "<f8", offset=CHUNK_HEADER.itemsize).reshape(horizon, PROPRIOCEPTION_DIM)
    return Chunk(
        session=session,
        sequence=sequence,
        sent_ns=sent_ns,
        deadline_ns=deadline_ns,
        t0_ns=t0_ns,
        dt_ns=dt_ns,
        revision=revision,
        space=ActionSpace(space),
        actions=actions.astype(np.float64),
    )


def decode_state(data: bytes) -> State | Unreadable:
    """The state, or why these bytes are none. Its proprioception is finite."""
    if unreadable := _unreadable(data, STATE_KIND, STATE.itemsize):
        return unreadable
    fields = np.frombuffer(data, STATE, 1)[0].item()
    _, _, mode, outcome, refused, session, sequence, sent_ns, deadline_ns, t_ns, remaining_ns, revision, _ = fields
    proprioception = np.frombuffer(data, "<f8", PROPRIOCEPTION_DIM, STATE.fields["proprioception"][1])
    sound = (
        len(data) == STATE.itemsize
        and mode < len(MODES)
        and outcome < len(OUTCOMES)
        and _numbers(session, sequence, revision)
        and _times(sent_ns, deadline_ns, t_ns, remaining_ns)
        and remaining_ns >= 0
        and bool(np.isfinite(proprioception).all())
    )
    if not sound:
        return "malformed"
    return State(
        session=session,
        sequence=sequence,
        sent_ns=sent_ns,
        deadline_ns=deadline_ns,
        t_ns=t_ns,
        mode=MODES[mode],
        outcome=OUTCOMES[outcome],
        proprioception=proprioception.astype(np.float64),
        remaining_ns=remaining_ns,
        revision=revision,
        refused_in_a_row=refused,
    )


def is_stream(data: bytes) -> bool:
    """Whether these bytes claim to be a chunk or a state; the other messages are msgpack arrays and begin with 0x9?."""
    return data[:1] in (bytes([CHUNK_KIND]), bytes([STATE_KIND]))


def _unreadable(data: bytes, kind: int, header_bytes: int) -> Unreadable | None:
    if len(data) > MAX_STREAM_BYTES:
        return "oversized"
    if len(data) < 2 or data[0] != kind:
        return "malformed"
    if data[1] != VERSION:
        return "wrong version"
    return "malformed" if len(data) < header_bytes else None


def _numbers(*numbers: int) -> bool:
    return max(numbers) <= MAX_NUMBER


def _times(*times_ns: int) -> bool:
    return all(-MAX_TIME_NS <= t_ns <= MAX_TIME_NS for t_ns in times_ns)
