"""A double answers while it runs: one thread that waits for questions, and for news of the spectator."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import zmq

LOOK_MS = 200  # how long a wait may take before the thread looks whether it is to end


class Answers:
    """Answers every message on `address` (REP) with the JSON of `result()`; without an address it only listens."""

    def __init__(
        self,
        address: str | None,
        result: Callable[[], dict[str, Any]],
        news: Connection,
        hear: Callable[[Any], None],
    ) -> None:
        self._address, self._result, self._news, self._hear = address, result, news, hear
        self._quit = threading.Event()
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)

    def __enter__(self) -> Answers:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._quit.set()
        self._thread.join()
        self._read_news()

    def _run(self) -> None:
        with zmq.Context() as context, context.socket(zmq.REP) as socket:
            poller = zmq.Poller()
            poller.register(self._news.fileno(), zmq.POLLIN)
            if self._address is not None:
                socket.setsockopt(zmq.LINGER, 0)
                socket.setsockopt(zmq.MAXMSGSIZE, 64)
                socket.bind(self._address)
                poller.register(socket, zmq.POLLIN)
            while not self._quit.is_set():
                ready = dict(poller.poll(LOOK_MS))
                if self._news.fileno() in ready and not self._read_news():
                    poller.unregister(self._news.fileno())
                if socket in ready:
                    socket.recv()
                    socket.send(json.dumps(self._result()).encode())

    def _read_news(self) -> bool:
        """Hear all that has come; False when no more will."""
        try:
            while self._news.poll():
                self._hear(self._news.recv())
        except (EOFError, OSError):
            return False
        return True


def ask(address: str, timeout_s: float = 2.0) -> dict[str, Any] | None:
    """What a double says of itself, or None when it does not answer in time."""
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(address)
        socket.send(b"result")
        if not socket.poll(round(timeout_s * 1000)):
            return None
        answer: dict[str, Any] = json.loads(socket.recv())
        return answer
