"""A server on the loopback that speaks OpenAI's format, or fails in a way that the test picks."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WAIT_S = 60.0  # for what happens at once on a machine that has time

Ask = dict[str, Any]


def completion(text: str, **more: object) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 90, "completion_tokens": 7, "total_tokens": 97}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage, **more}).encode()


@dataclass
class OpenAiDouble:
    """`rule` answers a question. `fail` is called instead, where it is set, with the handler of the request.

    `asked` are the questions in order, `keys` their Authorization headers.
    """

    rule: Callable[[Ask], str] = lambda asked: "pick up the red cube"
    models: tuple[str, ...] = ("am_grounded",)
    fail: Callable[[_Handler], None] | None = None
    fail_models: Callable[[_Handler], None] | None = None
    asked: list[Ask] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    port: int = 0
    let_go: threading.Event = field(default_factory=threading.Event)  # of everything that hangs
    _server: ThreadingHTTPServer | None = None
    _connections: list[socket.socket] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        double = self

        class Handler(_Handler):
            owner = double

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        """As a machine that is switched off: nobody listens, open connections break off."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        while self._connections:
            reset(self._connections.pop())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: OpenAiDouble

    def setup(self) -> None:
        super().setup()
        self.owner._connections.append(self.connection)

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(OSError, ValueError):  # the client is gone
            super().handle()

    def do_GET(self) -> None:
        if self.owner.fail_models is not None:
            self.owner.fail_models(self)
            return
        assert self.path == "/v1/models"
        self.reply(json.dumps({"object": "list", "data": [{"id": name} for name in self.owner.models]}).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.owner.asked.append(json.loads(body))
        self.owner.keys.append(self.headers["Authorization"])
        if self.owner.fail is not None:
            self.owner.fail(self)
            return
        assert self.path == "/v1/chat/completions"
        self.reply(completion(self.owner.rule(self.owner.asked[-1])))

    def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def raw(self, data: bytes) -> None:
        self.wfile.write(data)
        self.close_connection = True


def reset(connection: socket.socket) -> None:
    """Break a connection off with a TCP reset."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def hangs(handler: _Handler) -> None:
    handler.owner.let_go.wait(WAIT_S)
    handler.close_connection = True


def drips(start: bytes) -> Callable[[_Handler], None]:
    """Sends `start`, then one byte after another for as long as somebody listens: no single wait is long."""

    def fail(handler: _Handler) -> None:
        handler.wfile.write(start)
        while not handler.owner.let_go.wait(0.005):
            handler.wfile.write(b"x")
        handler.close_connection = True

    return fail


@contextmanager
def serving(**settings: Any) -> Iterator[OpenAiDouble]:
    double = OpenAiDouble(**settings)
    double.start()
    try:
        yield double
    finally:
        double.let_go.set()
        double.stop()
