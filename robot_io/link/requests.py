"""Commands with an answer: sent again until it comes, executed once, and refused loudly when it does not come."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import cast

import zmq

from memrt.robot_io.link.key_check import HandshakeWatch
from memrt.robot_io.link.keys import ClientKeys
from memrt.robot_io.link.receiving import Receiver, other_version
from memrt.robot_io.link.sockets import open_socket
from memrt.robot_io.link.wire import (
    VERSION,
    Ack,
    Command,
    FromNode,
    Hello,
    Message,
    Welcome,
    encode,
)
from memrt.runtime.clock import NS_PER_MS
from memrt.runtime.errors import MemrtError

REPEAT_MS = 100  # a lost message is repeated after this long; the node executes a sequence number once
ANSWER_MS = 3_000  # a stop is answered when the robot is at rest, which takes up to 2 s


class NoAnswerError(MemrtError):
    """Nobody answered in time; a later attempt may."""


class Requester:
    """One DEALER socket for requests; its lock makes it usable from any thread, one request at a time."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, keys: ClientKeys | None) -> None:
        self._lock = threading.Lock()
        self._receiver = Receiver(FromNode)
        self._socket = open_socket(context, zmq.DEALER, address, keys=keys)
        self._handshakes = HandshakeWatch(self._socket, has_keys=keys is not None)
        self._socket.connect(address)

    def ask(self, message: Hello | Command, what: str, answer_ms: int = ANSWER_MS) -> Ack | Welcome:
        """Send until answered.

        Raises NoAnswerError when there is no answer within `answer_ms`, MemrtError for one of another version.
        """
        with self._lock:
            deadline_ns = time.monotonic_ns() + answer_ms * NS_PER_MS
            while time.monotonic_ns() < deadline_ns:
                self._send(message)
                answer = self._await(message.sequence, min(deadline_ns, time.monotonic_ns() + REPEAT_MS * NS_PER_MS))
                if answer is not None:
                    return answer
        raise NoAnswerError(
            f"{what}: no answer from the robot",
            expected=f"an acknowledgement within {answer_ms / 1000:g} s",
            found="none",
            fix="check that the robot's node runs and that its endpoint is right; use the emergency stop if it moves",
        )

    def handshake_failure(self, *, final: bool) -> str:
        """As `HandshakeWatch.failure`."""
        with self._lock:
            return self._handshakes.failure(final)

    def close(self) -> None:
        """Close the socket."""
        self._handshakes.close()
        self._socket.close()

    def _send(self, message: Message) -> None:
        with contextlib.suppress(zmq.Again):  # not connected yet: it is repeated
            self._socket.send(encode(message), zmq.NOBLOCK)

    def _await(self, sequence: int, until_ns: int) -> Ack | Welcome | None:
        while True:
            wait_ms = -(-(until_ns - time.monotonic_ns()) // NS_PER_MS)
            if wait_ms <= 0 or not self._socket.poll(wait_ms):
                return None
            data = self._socket.recv()
            answer = cast(Ack | Welcome | None, self._receiver.decode(data))
            if answer is None and (other := other_version(data)):
                raise MemrtError(
                    "the link to the robot",
                    expected=f"a node that speaks version {VERSION} of the link",
                    found=f"one that speaks version {other.version}",
                    fix="install the same memrt on both computers",
                )
            if isinstance(answer, Ack | Welcome) and answer.sequence == sequence:
                return answer  # an answer to an earlier, repeated request is passed over
