"""The newest state of a robot node, and its recent past, received in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import zmq

from memrt.robot_io.cameras.alignment import state_at
from memrt.robot_io.link.wire import MAX_TRANSPORT_BYTES, InOrder, Published, Receiver, Report, State
from memrt.runtime.types import FloatArray

HISTORY = 128  # states: 1.3 s at 100 Hz, so that a frame up to that old finds its proprioception
POLL_MS = 100


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The newest state, when it came in (local clock), and the newest report."""

    state: State | None = None
    received_ns: int = 0
    values: Mapping[str, Any] = field(default_factory=dict)


class StateFeed:
    """Subscribes from construction until `close`. Every method may be called from any thread."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, session: int) -> None:
        self._session = session
        self._receiver = Receiver(Published)
        self._order = InOrder()
        self._lock = threading.Lock()
        self._history: deque[tuple[int, FloatArray]] = deque(maxlen=HISTORY)
        self._snapshot = Snapshot()
        self._complete = threading.Event()
        self._quit = threading.Event()
        self._socket = context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_TRANSPORT_BYTES)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._socket.connect(address)
        self._thread = threading.Thread(target=self._receive, name="state feed", daemon=True)
        self._thread.start()

    @property
    def snapshot(self) -> Snapshot:
        """What is known now."""
        with self._lock:
            return self._snapshot

    def wait_first(self, timeout_s: float) -> bool:
        """Whether a state and a report have come in, after at most `timeout_s`."""
        return self._complete.wait(timeout_s)

    def proprioception_at(self, t_ns: int) -> FloatArray:
        """Float64 [8] at the node's time `t_ns`: between two states interpolated, outside them the nearest."""
        return state_at(*self.history(), t_ns)[0]

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
            if not self._socket.poll(POLL_MS):
                continue
            message = self._receiver.decode(self._socket.recv())
            # Before its session begins, and after it has ended, a node publishes under another session's number.
            if message is None or message.session != self._session or not self._order.accept(message.sequence):
                continue
            if isinstance(message, State):
                self._take_state(message)
            elif isinstance(message, Report):
                with self._lock:
                    old = self._snapshot
                    self._snapshot = Snapshot(old.state, old.received_ns, {**message.values, **message.texts})
                    if old.state is not None:
                        self._complete.set()
        self._socket.close()

    def _take_state(self, state: State) -> None:
        proprioception = np.array([*state.q, state.gripper])
        with self._lock:
            if not self._history or state.t_ns > self._history[-1][0]:
                self._history.append((state.t_ns, proprioception))
            self._snapshot = Snapshot(state, time.monotonic_ns(), self._snapshot.values)
