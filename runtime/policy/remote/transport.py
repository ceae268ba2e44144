"""HTTP to one server, bounded: in time to the last byte, however slowly they drip, and in the size of what comes back.

One thread asks; another may `abort` what it is waiting for. No redirect is followed, no proxy used, no encoding but
plain bytes accepted. The connection is kept between questions.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any, Literal, cast

from memrt.runtime.remote_config import Endpoint

MAX_REPLY_BYTES = 1 << 20  # an answer of 384 tokens has 2 KiB, vLLM's list of models some more
_MAX_COMPLAINT = 200  # characters of what a server says with an error
_PIECE = 1 << 16  # bytes sent between two looks at the clock

Miss = Literal["late", "no connection", "broken off", "refused", "unreadable"]


class Missed(Exception):  # noqa: N818  # what the remote's caller counts, not what a user meets
    """No answer: `kind` for counting, the text for people. `status` is HTTP's, where one came."""

    def __init__(self, kind: Miss, why: object, status: int | None = None) -> None:
        super().__init__(" ".join(f"{kind}: {why}".split())[:400])  # one line, whatever a server sends
        self.kind, self.status = kind, status


class Transport:
    """One connection to an endpoint, made when it is needed."""

    def __init__(self, endpoint: Endpoint, headers: Mapping[str, str], connect_s: float) -> None:
        """`headers` go with every request; no connection is waited for longer than `connect_s`."""
        self._path, self._headers = endpoint.path, dict(headers)
        self._connection = _Connection(endpoint, connect_s)

    def get(self, path: str, until_s: float) -> bytes:
        """The body of `path` below the endpoint. `until_s` on the monotonic clock. Raises Missed."""
        return self._exchange("GET", path, None, until_s)

    def post(self, path: str, body: bytes, until_s: float) -> bytes:
        """The body of the answer to the JSON `body`. Raises Missed."""
        return self._exchange("POST", path, body, until_s)

    def abort(self) -> None:
        """Any thread: let the exchange that is under way fail now. Where none is, the next one is not affected."""
        self._connection.abort()

    def close(self) -> None:
        """The asking thread: close the connection."""
        self._connection.close()

    def _exchange(self, method: str, path: str, body: bytes | None, until_s: float) -> bytes:
        connection = self._connection
        connection.until_s, connection.aborted = until_s, False
        kept = connection.sock is not None
        try:
            try:
                return self._once(method, path, body)
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                if not kept or connection.aborted:
                    raise
                connection.close()  # it was closed while nobody spoke, as servers do: that is no miss
                return self._once(method, path, body)
        except Missed:
            connection.close()
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            raise _missed(error, connection.connecting) from error

    def _once(self, method: str, path: str, body: bytes | None) -> bytes:
        connection = self._connection
        headers = self._headers | ({} if body is None else {"Content-Type": "application/json"})
        connection.request(method, self._path + path, body, headers)
        with connection.getresponse() as response:
            data = response.read(MAX_REPLY_BYTES + 1)
            if response.status != http.client.OK:
                raise Missed("refused", f"HTTP {response.status}{_complaint(response, data)}", response.status)
            if (encoding := response.getheader("Content-Encoding", "identity")) != "identity":
                raise Missed("unreadable", f"an answer that is encoded as {encoding!r:.40}")
            if len(data) > MAX_REPLY_BYTES:
                raise Missed("unreadable", f"an answer of more than {MAX_REPLY_BYTES} bytes")
            if response.length:  # of a body with a length, what did not come
                raise Missed("broken off", f"{response.length} bytes before the answer's end")
            return data


class _Connection(http.client.HTTPConnection):
    """http.client's, with a deadline for everything that touches the socket."""

    def __init__(self, endpoint: Endpoint, connect_s: float) -> None:
        super().__init__(endpoint.host, endpoint.port)
        self.default_port = 443 if endpoint.tls else 80  # which the Host header leaves out
        self.until_s = 0.0
        self.aborted = self.connecting = False
        self._tls = ssl.create_default_context() if endpoint.tls else None
        self._connect_s = connect_s
        self._bounded: _BoundedSocket | None = None

    def connect(self) -> None:
        self.connecting = True
        limit_s = min(self.until_s, time.monotonic() + self._connect_s)
        plain = socket.create_connection((self.host, self.port), timeout=_left(limit_s))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:  # the handshake by itself, so that `abort` reaches it
            plain = self._tls.wrap_socket(plain, server_hostname=self.host, do_handshake_on_connect=False)
        self._bounded = _BoundedSocket(plain, self)
        if isinstance(plain, ssl.SSLSocket):
            plain.settimeout(_left(limit_s))
            plain.do_handshake()
        self.sock = cast(Any, self._bounded)
        self.connecting = False

    def left_s(self) -> float:
        """How long the socket may be waited for."""
        if self.aborted:
            raise ConnectionAbortedError("given up")
        return _left(self.until_s)

    def abort(self) -> None:
        self.aborted = True
        if self._bounded is not None:
            self._bounded.abort()

    def close(self) -> None:
        half_open = self.sock is None
        super().close()
        if half_open and self._bounded is not None:  # a handshake failed
            self._bounded.close()


class _BoundedSocket:
    """What http.client uses of a socket. No wait, and no sum of them, goes past the connection's `until_s`.

    As with a plain one, what is being read stays open when the connection hands it over and closes its own end.
    """

    def __init__(self, plain: socket.socket, owner: _Connection) -> None:
        self._plain, self._owner = plain, owner
        self._users = 1

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            self._plain.settimeout(self._owner.left_s())
            view = view[self._plain.send(view[:_PIECE]) :]

    def recv_into(self, buffer: Any) -> int:
        self._plain.settimeout(self._owner.left_s())
        return self._plain.recv_into(buffer)

    def makefile(self, mode: str) -> io.BufferedReader:
        self._users += 1
        return io.BufferedReader(_Reader(self))

    def abort(self) -> None:
        with contextlib.suppress(OSError):  # closed already
            # A TLS socket's own shutdown would drop its state under the reading thread.
            socket.socket.shutdown(self._plain, socket.SHUT_RDWR)

    def close(self) -> None:
        self._users -= 1
        if self._users <= 0:
            self._plain.close()


class _Reader(io.RawIOBase):
    def __init__(self, bounded: _BoundedSocket) -> None:
        self._bounded = bounded

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._bounded.recv_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._bounded.close()


def _left(until_s: float) -> float:
    left = until_s - time.monotonic()
    if left <= 0:
        raise TimeoutError("its time is over")
    return left


def _missed(error: Exception, connecting: bool) -> Missed:
    said = f"{type(error).__name__}: {error}".rstrip(": ")
    if connecting:
        return Missed("no connection", said)
    if isinstance(error, TimeoutError):
        return Missed("late", said)
    if isinstance(error, OSError):  # http.client.RemoteDisconnected is one too
        return Missed("broken off", said)
    return Missed("broken off" if isinstance(error, http.client.IncompleteRead) else "unreadable", said)


def _complaint(response: http.client.HTTPResponse, data: bytes) -> str:
    location = response.getheader("Location")
    if location is not None:
        return f", a redirect to {location!r:.100}"
    text = " ".join(data.decode("utf-8", "replace").split())
    return f" ({text[:_MAX_COMPLAINT]})" if text else ""
