"""The newest state of a robot node, and its recent past, received in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import zmq

from memrt.robot_io.link.clock_sync import ClockEstimate
from memrt.robot_io.link.keys import ClientKeys
from memrt.robot_io.link.receiving import InOrder, Receiver
from memrt.robot_io.link.sockets import open_socket
from memrt.robot_io.link.streams import State, decode_state, is_stream
from memrt.robot_io.link.wire import Report
from memrt.runtime.types import FloatArray

HISTORY = 128  # states: 1.3 s at 100 Hz, so that a frame up to that old finds its proprioception
POLL_MS = 100


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The newest state, when it came in (local clock), and the newest report."""

    state: State | None = None
    received_ns: int = 0
    reason: str = ""
    fault: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


class StateFeed:
    """Subscribes from construction until `close`. Every method may be called from any thread.

    `clock` tells the node's clock, or None while it is not known: deadlines are not judged then.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        session: int,
        clock: Callable[[], ClockEstimate | None],
        keys: ClientKeys | None,
    ) -> None:
        self._session = session
        self._clock = clock
        self._receiver = Receiver(Report)
        self._order = InOrder()
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._history: deque[tuple[int, FloatArray]] = deque(maxlen=HISTORY)
        self._snapshot = Snapshot()
        self._reported = False
        self._complete = threading.Event()
        self._quit = threading.Event()
        self._socket = open_socket(context, zmq.SUB, address, keys=keys)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._socket.connect(address)
        self._thread = threading.Thread(target=self._receive, name="state feed", daemon=True)
        self._thread.start()

    @property
    def snapshot(self) -> Snapshot:
        """What is known now."""
        with self._lock:
            return self._snapshot

    @property
    def dropped(self) -> Counter[str]:
        """How many messages were dropped, by reason."""
        return self._counts + self._receiver.dropped + self._order.dropped

    def wait_first(self, timeout_s: float) -> bool:
        """Whether a state and a report have come in, after at most `timeout_s`."""
        return self._complete.wait(timeout_s)

    def history(self) -> tuple[list[int], list[FloatArray]]:
        """The node's times of the recent states, rising, and their proprioception, each float64 [8]."""
        with self._lock:
            return [t_ns for t_ns, _ in self._history], [proprioception for _, proprioception in self._history]

    def close(self) -> None:
        """End the thread and close its socket."""
        self._quit.set()
        self._thread.join()

    def _receive(self) -> None:
        while not self._quit.is_set():
            if self._socket.poll(POLL_MS):
                self._take(self._socket.recv())
        self._socket.close()

    def _take(self, data: bytes) -> None:
        message = decode_state(data) if is_stream(data) else self._receiver.decode(data)
        if isinstance(message, str):
            self._counts[message] += 1
        elif message is None:
            pass  # counted by the receiver
        elif message.session != self._session:
            # Before our session begins the node publishes under another's number: no news then.
            self._counts["foreign session"] += self._snapshot.state is not None
        elif self._order.accept(message.sequence):
            if isinstance(message, State):
                self._take_state(message)
            elif isinstance(message, Report):
                self._take_report(message)

    def _take_state(self, state: State) -> None:
        now_ns, clock = time.monotonic_ns(), self._clock()
        if clock is not None and now_ns > clock.to_local(state.deadline_ns) + clock.uncertainty_ns:
            self._counts["past deadline"] += 1
            return
        with self._lock:
            if not self._history or state.t_ns > self._history[-1][0]:
                self._history.append((state.t_ns, state.proprioception))
            self._snapshot = replace(self._snapshot, state=state, received_ns=now_ns)
            if self._reported:
                self._complete.set()

    def _take_report(self, report: Report) -> None:
        with self._lock:
            self._snapshot = replace(
                self._snapshot, reason=report.reason, fault=report.fault, values={**report.values, **report.texts}
            )
            self._reported = True
            if self._snapshot.state is not None:
                self._complete.set()
