"""What a node tells about its robot: a state every 10 ms, a report every 200 ms and whenever its words change."""

from __future__ import annotations

import time
from collections.abc import Callable

import zmq

from memrt.robot_io.driver import Driver
from memrt.robot_io.link.chunk_gate import ChunkGate
from memrt.robot_io.link.session import NodeSession
from memrt.robot_io.link.streams import State, encode_state
from memrt.robot_io.link.wire import MAX_TEXT, Report, encode
from memrt.runtime.clock import NS_PER_MS
from memrt.runtime.types import RobotMode

STATE_PERIOD_NS = 10 * NS_PER_MS  # 100 Hz
REPORT_PERIOD_NS = 200 * NS_PER_MS
STATE_LIFE_NS = 500 * NS_PER_MS  # a client takes the node for gone when it has heard no state for this long

Figures = tuple[dict[str, float], dict[str, str]]


class Publisher:
    """Publishes on one PUB socket, which never waits for a reader. `figures` gives the node's own part of a report."""

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        driver: Driver,
        session: NodeSession,
        gate: ChunkGate,
        figures: Callable[[], Figures],
    ) -> None:
        self._socket = socket
        self._driver = driver
        self._session = session
        self._gate = gate
        self._figures = figures
        self._words = ("", "")
        self._next_report_ns = 0
        self.next_state_ns = 0
        self.sequence = 0

    def publish(self, now_ns: int) -> None:
        """Send what is due."""
        if now_ns < self.next_state_ns:
            return
        self.next_state_ns = max(self.next_state_ns + STATE_PERIOD_NS, now_ns)
        status, reason = self._driver.outcome
        words = (reason[:MAX_TEXT], self._session.fault[:MAX_TEXT])
        if words != self._words or now_ns >= self._next_report_ns:
            self._next_report_ns = max(self._next_report_ns + REPORT_PERIOD_NS, now_ns)
            self._words = words
            values, texts = self._figures()
            self._send(encode(Report(self._session.session or 0, self._next(), *words, values, texts)))
        t_ns, proprioception = self._driver.proprioception()
        running = self._session.mode is RobotMode.RUNNING
        sent_ns = time.monotonic_ns()
        state = State(
            session=self._session.session or 0,
            sequence=self._next(),
            sent_ns=sent_ns,
            deadline_ns=sent_ns + STATE_LIFE_NS,
            t_ns=t_ns,
            mode=self._session.mode,
            outcome=status,
            proprioception=proprioception,
            remaining_ns=self._driver.remaining_ns() if running else 0,
            revision=self._gate.revision,
            refused_in_a_row=self._gate.refused_in_a_row,
        )
        self._send(encode_state(state))

    def _next(self) -> int:
        self.sequence += 1
        return self.sequence

    def _send(self, data: bytes) -> None:
        self._socket.send(data, zmq.NOBLOCK)
