"""A bundle's VLM behind OpenAI's chat completions, so that another memrt asks it: HTTP, one answer at a time.

Memory stays with whoever asks. Threading rule: one thread per connection reads and writes; the VLM belongs to whoever
holds `_turn`. A client can cost others time, never more: what it sends is bounded, and one that is gone gets no answer.
"""

from __future__ import annotations

import json
import logging
import select
import signal
import socket
import socketserver
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from memrt.robot_io.serve.chat_request import ChatQuestion, read_question
from memrt.robot_io.serve.server import HEALTH_PATHS, Limits, address_refused
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.cancellation import Cancelled
from memrt.runtime.policy.vlm import Vlm

BODY_S = 30.0  # for the whole of a request's body, however slowly it comes
_log = logging.getLogger(__name__)

MODELS, COMPLETIONS = "/v1/models", "/v1/chat/completions"


class ChatServer(socketserver.ThreadingTCPServer):
    """Serves one VLM under the name `model`. `counts` say what was done."""

    allow_reuse_address = daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, vlm: Vlm, model: str, max_new_tokens: int, limits: Limits) -> None:
        """`max_new_tokens` for clients that name no number. Raises MemrtError when the address cannot be bound."""
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.vlm, self.model, self.max_new_tokens, self.limits = vlm, model, max_new_tokens, limits
        self.counts: Counter[str] = Counter()
        self._turn, self._places = threading.Lock(), threading.BoundedSemaphore(limits.connections)
        self._last: object = None  # the connection that was answered last
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise address_refused(host, port, error) from error

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def run(self, ready: Callable[[int], None]) -> None:
        """Serve until SIGINT or SIGTERM; `ready` is told the port."""
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        thread = threading.Thread(target=self.serve_forever, daemon=True)
        thread.start()
        ready(self.port)
        stop.wait()
        self.shutdown()
        self.server_close()

    def answer(self, question: ChatQuestion, connection: socket.socket) -> dict[str, Any]:
        """The response's values. Raises MemrtError for a question that cannot be asked or whose turn does not come,
        Cancelled when the client is gone.
        """
        if not self._turn.acquire(timeout=self.limits.busy_s):
            raise _BusyError(
                "server",
                expected=f"a turn within {self.limits.busy_s:g} s",
                found="busy with other clients",
                fix="serve fewer clients at once, or start another server",
            )
        try:
            if self._last is not connection:  # no client's bits depend on what others asked in between
                self._last = connection
                self.vlm.forget_prefix()
            reply = self.vlm.generate(
                question.system,
                question.user,
                question.images,
                question.max_new_tokens or self.max_new_tokens,
                cancelled=lambda: _gone(connection),
            )
        finally:
            self._turn.release()
        message = {"role": "assistant", "content": reply.text}
        return {
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self.model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"completion_tokens": reply.new_tokens},
        }

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is a place left; a connection beyond them is told so and closed."""
        if self._places.acquire(blocking=False):
            return True
        self.counts["connections refused"] += 1
        request.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        return False

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """One connection, from its first request to its last."""
        self.counts["connections"] += 1
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke off is no fault of ours; everything else is, and is logged."""
        self.counts["connections broken off"] += 1
        if not isinstance(sys.exc_info()[1], OSError):
            _log.exception("a connection failed")


class _BusyError(MemrtError):
    """No turn in time."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ChatServer

    def setup(self) -> None:
        self.timeout = self.server.limits.idle_s
        super().setup()

    def log_message(self, *_: object) -> None:
        """Counts say it."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in HEALTH_PATHS:
            self._send(HTTPStatus.OK, HEALTH_PATHS[path][1].encode(), HEALTH_PATHS[path][0])
        elif path == MODELS and not self._from_a_web_page():
            model = {"id": self.server.model, "object": "model", "owned_by": "memrt"}
            self._send(HTTPStatus.OK, {"object": "list", "data": [model]})
        else:
            self._refuse(HTTPStatus.NOT_FOUND, f"expected {MODELS} or {COMPLETIONS}, found {path!r:.80}")

    def do_POST(self) -> None:
        body = self._body()
        if body is None:
            self.close_connection = True  # what is left of it cannot be told from the next request
        elif self.path != COMPLETIONS or self._from_a_web_page():
            self._refuse(HTTPStatus.NOT_FOUND, f"expected {COMPLETIONS}, found {self.path!r:.80}")
        else:
            self._complete(body)

    def _complete(self, body: bytes) -> None:
        server = self.server
        try:
            question = read_question(body)
            if question.model not in ("", server.model):
                self._refuse(HTTPStatus.NOT_FOUND, f"expected model {server.model}, found {question.model!r:.80}")
                return
            response = server.answer(question, self.connection)
        except Cancelled:
            server.counts["given up by the client"] += 1
            self.close_connection = True
        except _BusyError as error:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        except MemrtError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        else:
            server.counts["answered"] += 1
            self._send(HTTPStatus.OK, response)

    def _body(self) -> bytes | None:
        """The request's body; None when it was refused for its length or did not come."""
        given, limit = self.headers.get("Content-Length", ""), self.server.limits.message_bytes
        if not (given.isascii() and given.isdigit()):
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "expected a Content-Length")
            return None
        if len(given) > 12 or int(given) > limit:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected at most {limit} bytes, found {given:.20}")
            return None
        left, until_s, pieces = int(given), time.monotonic() + BODY_S, []
        while left:
            piece = self.rfile.read1(left)  # one look at the socket
            if not piece or time.monotonic() > until_s:
                return None
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def _from_a_web_page(self) -> bool:
        return self.headers.get("Origin") is not None  # browsers send it: none may speak to a robot's server

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self.server.counts["refused"] += 1
        self._send(status, {"error": {"message": why, "type": "invalid_request_error", "code": status.value}})

    def _send(self, status: HTTPStatus, content: dict[str, Any] | bytes, kind: str = "application/json") -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _gone(connection: socket.socket) -> bool:
    """Whether the client has closed the connection: it asks nothing more before it is answered."""
    readable, _, _ = select.select([connection], [], [], 0)
    try:
        return bool(readable) and not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return True
