"""A WebSocket server for policies: bounded in connections, bytes and silence, one inference at a time.

Threading rule: everything runs in one asyncio loop, but `Conversation.answer`, which runs in one thread of its own that
owns the policies. A client can cost others time, never more: what it sends is decoded within bounds or refused, and
whatever goes wrong ends at most its own connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import logging
import operator
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from memrt.robot_io.serve.conversation import Conversation
from memrt.runtime.errors import MemrtError

MIB = 1 << 20
WAITING = 4  # messages of one connection that were read and not answered; then it is not read any further
REFUSED_IN_A_ROW = 16  # then the connection is closed: whoever sends this does not read the refusals
HEALTH_PATHS = {"/healthz": ("text/plain", "OK\n"), "/health": ("application/json", '{"status": "ok"}\n')}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client, and all of them together, may cost."""

    message_bytes: int = 64 * MIB  # RoboMME sends a demonstration of 300 frames of 256x256 in one message
    connections: int = 4
    idle_s: float = 600.0  # without a message; a person may reset the scene meanwhile
    yield_s: float = 30.0  # so silent, a client gives its place to a new one: RoboMME's leaves its old connections open
    busy_s: float = 30.0  # a request that waits longer for its turn is refused
    send_s: float = 10.0  # a client that does not read its replies is dropped


def address_refused(host: str, port: int, error: OSError) -> MemrtError:
    """Why a server cannot listen there."""
    return MemrtError(
        f"address {host}:{port}",
        expected="one that is free and this computer's own",
        found=error.strerror or str(error),
        fix="choose another --port (0: any free one), or another --host",
    )


@dataclass(slots=True)
class PolicyServer:
    """Serves one protocol; `converse` begins the conversation of a new connection."""

    converse: Callable[[], Conversation]
    limits: Limits = Limits()
    counts: Counter[str] = field(default_factory=Counter)
    _clients: dict[ServerConnection, float] = field(default_factory=dict, init=False)  # and when last active
    _closing: set[asyncio.Future[None]] = field(default_factory=set, init=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "policies"), init=False)

    async def run(self, host: str, port: int, stop: asyncio.Event, ready: Callable[[int], None]) -> None:
        """Serve until `stop`; `ready` is told the port. Raises MemrtError when the address cannot be bound."""
        quiet = logging.getLogger(f"{__name__}.websockets")
        quiet.propagate = False  # its handshake errors are port scanners' and browsers', and each is a traceback
        quiet.addHandler(logging.NullHandler())
        try:
            server = await serve(
                self._connection,
                host,
                port,
                compression=None,
                max_size=self.limits.message_bytes,
                max_queue=1,
                ping_interval=None,  # a simulator that computes for minutes is silent, not gone
                close_timeout=1.0,
                origins=[None],  # browsers send an Origin: no web page may speak to a robot's server
                process_request=self._request,
                server_header=None,
                logger=quiet,
            )
        except OSError as error:
            raise address_refused(host, port, error) from error
        try:
            ready(_port(server))
            await stop.wait()
        finally:
            server.close()
            await server.wait_closed()
            self._thread.shutdown(wait=True, cancel_futures=True)

    def _request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Health checks and refusals, before a connection becomes a WebSocket."""
        path = request.path.partition("?")[0]
        if path in HEALTH_PATHS:
            kind, body = HEALTH_PATHS[path]
            response = connection.respond(http.HTTPStatus.OK, body)
            del response.headers["Content-Type"]  # it collects values, it does not replace them
            response.headers["Content-Type"] = kind
            return response
        if not self._make_room():
            self.counts["connections refused"] += 1
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, f"{len(self._clients)} clients are served\n")
        return None

    def _make_room(self) -> bool:
        if len(self._clients) < self.limits.connections:
            return True
        silent, since = min(self._clients.items(), key=operator.itemgetter(1))
        if time.monotonic() - since < self.limits.yield_s:
            return False
        del self._clients[silent]
        self.counts["gave way"] += 1
        self._closing.add(closing := asyncio.ensure_future(silent.close(CloseCode.TRY_AGAIN_LATER, "gave way")))
        closing.add_done_callback(self._closing.discard)
        return True

    def touch(self, connection: ServerConnection) -> None:
        """`connection` has asked, or been answered."""
        if connection in self._clients:
            self._clients[connection] = time.monotonic()

    async def _connection(self, connection: ServerConnection) -> None:
        if not self._make_room():  # several may have come through the handshake at once
            await connection.close(CloseCode.TRY_AGAIN_LATER, "too many clients")
            return
        self._clients[connection] = time.monotonic()
        self.counts["connections"] += 1
        try:
            await _Client(self, connection).serve()
        except ConnectionClosed as end:
            self.counts["oversized"] += end.sent is not None and end.sent.code == CloseCode.MESSAGE_TOO_BIG
        except asyncio.TimeoutError:  # it does not take what it is sent: no closing handshake either
            self.counts["clients that did not read"] += 1
            connection.transport.abort()
        except Exception:
            self.counts["internal errors"] += 1
            _log.exception("a connection failed")
            with contextlib.suppress(ConnectionClosed):
                await connection.close(CloseCode.INTERNAL_ERROR, "internal error")
        finally:
            self._clients.pop(connection, None)

    async def answer(self, conversation: Conversation, message: Any) -> bytes | None:
        """`conversation.answer` in the policies' thread, when its turn comes. Raises MemrtError when it does not."""
        try:
            await asyncio.wait_for(self._turn.acquire(), self.limits.busy_s)
        except asyncio.TimeoutError:
            self.counts["busy"] += 1
            raise MemrtError(
                "server",
                expected=f"a turn within {self.limits.busy_s:g} s",
                found=f"busy with {len(self._clients) - 1} other clients",
                fix="serve fewer clients at once, or start another server",
            ) from None
        try:
            work = asyncio.get_running_loop().run_in_executor(self._thread, conversation.answer, message)
            return await asyncio.shield(work)
        finally:
            self._turn.release()


class _Client:
    """One connection: a reader fills `_waiting`, `serve` empties it."""

    def __init__(self, server: PolicyServer, connection: ServerConnection) -> None:
        self._server, self._connection = server, connection
        self._conversation = server.converse()
        self._waiting: deque[Any] = deque()
        self._changed = asyncio.Condition()
        self._refused = 0

    async def serve(self) -> None:
        """Greet, then read and answer until either ends."""
        greeting = self._conversation.greeting()
        if greeting is not None:
            await self._send(greeting)
        tasks = [asyncio.ensure_future(self._read()), asyncio.ensure_future(self._answer())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> None:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: len(self._waiting) < WAITING)
            try:
                data = await asyncio.wait_for(self._connection.recv(), self._server.limits.idle_s)
            except asyncio.TimeoutError:
                self._server.counts["idle"] += 1
                await self._connection.close(CloseCode.NORMAL_CLOSURE, "idle for too long")
                return
            self._server.touch(self._connection)
            await self._take(data)

    async def _take(self, data: str | bytes) -> None:
        try:
            if isinstance(data, str):
                raise MemrtError("message", expected="a binary frame", found="a text frame", fix="send msgpack")
            message: Any = self._conversation.read(data)
        except MemrtError as error:
            message = error  # answered in its turn, so that replies keep the order of requests
        async with self._changed:
            if self._waiting and not isinstance(message, MemrtError) and not isinstance(self._waiting[-1], MemrtError):
                combined = self._conversation.supersedes(message, self._waiting[-1])
                if combined is not None:
                    self._waiting.pop()
                    message = combined
                    self._server.counts["superseded"] += 1
            self._waiting.append(message)
            self._changed.notify_all()

    async def _answer(self) -> None:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._waiting))
                message = self._waiting.popleft()
                self._changed.notify_all()
            try:
                if isinstance(message, MemrtError):
                    error, message = message, None
                    raise error
                reply: str | bytes | None = await self._server.answer(self._conversation, message)
                self._refused = 0
                self._server.counts["answered"] += 1
            except MemrtError as error:
                reply = self._conversation.refusal(error, message)
                self._server.counts["refused"] += 1
                self._refused += 1
            except Exception as error:
                _log.exception("a request failed")
                self._server.counts["internal errors"] += 1
                failure = MemrtError(
                    "internal error", expected="an answer", found=f"{type(error).__name__}: {error}", fix="report it"
                )
                await self._send(self._conversation.refusal(failure, message))
                await self._connection.close(CloseCode.INTERNAL_ERROR, "internal error, told in the previous frame")
                return
            if reply is not None:
                await self._send(reply)
            if self._refused >= REFUSED_IN_A_ROW:
                await self._connection.close(CloseCode.POLICY_VIOLATION, f"refused {REFUSED_IN_A_ROW} times in a row")
                return

    async def _send(self, data: str | bytes) -> None:
        await asyncio.wait_for(self._connection.send(data), self._server.limits.send_s)
        self._server.touch(self._connection)


def _port(server: Server) -> int:
    port: int = next(iter(server.sockets)).getsockname()[1]
    return port
