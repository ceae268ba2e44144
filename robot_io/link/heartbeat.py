"""The client's heartbeat: its own thread and socket, so that no inference delays it; it also measures the clocks."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time

import zmq

from memrt.robot_io.computer import outrank
from memrt.robot_io.link.clock_sync import ClockEstimate, ClockSync
from memrt.robot_io.link.keys import ClientKeys
from memrt.robot_io.link.receiving import Receiver
from memrt.robot_io.link.sockets import open_socket
from memrt.robot_io.link.wire import FromNode, Heartbeat, Pulse, encode
from memrt.runtime.clock import NS_PER_MS

PERIOD_NS = 10 * NS_PER_MS  # five beats fit into the 50 ms after which a node brakes
QUEUE = 8  # old beats are worthless: none queue up for a node that is away
NICE = -10  # where permitted; it needs 10 us of every 10 ms


class HeartbeatThread:
    """Beats from `start` until `close`. `estimate` may be read from any thread."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], address: str, session: int, keys: ClientKeys | None
    ) -> None:
        self._session = session
        self._receiver = Receiver(FromNode)
        self._sync = ClockSync()
        self._quit = threading.Event()
        self._socket = open_socket(context, zmq.DEALER, address, keys=keys, queue=QUEUE)
        self._socket.connect(address)
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self.estimate: ClockEstimate | None = None
        self.longest_gap_ns = 0
        self.dropped = self._receiver.dropped  # answers, by reason

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def close(self) -> None:
        """End the thread and close its socket."""
        self._quit.set()
        if self._thread.ident is not None:
            self._thread.join()
        else:
            self._socket.close()

    def _beat(self) -> None:
        outrank(NICE)
        sequence = itertools.count()
        last_ns = next_ns = time.monotonic_ns()
        while not self._quit.is_set():
            now_ns = time.monotonic_ns()
            if now_ns >= next_ns:
                self.longest_gap_ns = max(self.longest_gap_ns, now_ns - last_ns)
                last_ns, next_ns = now_ns, max(next_ns, now_ns - PERIOD_NS) + PERIOD_NS
                self._send(next(sequence))
            # An answer is read as soon as it comes: a round trip counts no time spent asleep here.
            if self._socket.poll(-(-max(0, next_ns - time.monotonic_ns()) // NS_PER_MS)):
                self._take_answer()
        self._socket.close()

    def _send(self, sequence: int) -> None:
        # When the node is away the beat is lost: it notices the silence itself, and so does the state channel here.
        with contextlib.suppress(zmq.Again):
            self._socket.send(encode(Heartbeat(self._session, sequence, time.monotonic_ns())), zmq.NOBLOCK)

    def _take_answer(self) -> None:
        answer = self._receiver.decode(self._socket.recv())
        if not isinstance(answer, Pulse) or answer.session != self._session:
            self.dropped["foreign session"] += answer is not None
        else:
            self._sync.add(answer.t_client_ns, answer.t_node_ns, time.monotonic_ns())
            self.estimate = self._sync.estimate
