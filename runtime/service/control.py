"""The service's control socket: one request, one answer, as JSON, on this computer only.

A SOCK_SEQPACKET socket file, so that a message is a message. Who may write to the file may command the robot: its mode
is 0660, the service's user and group. Requests are served side by side: a stop waits for nobody.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from memrt.runtime.errors import MemrtError

CONTROL = Path("/run/memrt/control")
MAX_BYTES = 1 << 16
MAX_CLIENTS = 16  # served at a time; one more is told so
READ_S = 2.0  # a client says what it wants at once
ANSWER_S = 30.0  # arming may wait for the clocks of two computers, disarming for the arm to come to rest
MODE = 0o660

Verb = Literal["status", "arm", "disarm", "stop", "resume", "home", "goal"]


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client wants. `goal` is for `arm`, where it may be None, and for `goal`."""

    verb: Verb
    goal: str | None = None


class Refusal(msgspec.Struct, frozen=True):
    """A MemrtError on its way."""

    what: str
    expected: str
    found: str
    fix: str

    @classmethod
    def of(cls, error: MemrtError) -> Refusal:
        """The error's four parts."""
        return cls(**error.parts)

    def error(self) -> MemrtError:
        """The error again."""
        return MemrtError(**msgspec.structs.asdict(self))


class Reply(msgspec.Struct, frozen=True):
    """`refused` says why the request was not carried out; `status` is the service's, as plain JSON values."""

    status: dict[str, Any]
    refused: Refusal | None = None


class ControlServer:
    """A context manager: listens at `path`, answers in threads of its own. `answer` may raise MemrtError."""

    def __init__(self, path: Path, answer: Callable[[Request], None], status: Callable[[], dict[str, Any]]) -> None:
        """Raises MemrtError when another service listens there, or the folder cannot be written."""
        self._path, self._answer, self._status = path, answer, status
        self._places = threading.BoundedSemaphore(MAX_CLIENTS)
        self._socket = _listen(path)
        self._thread = threading.Thread(target=self._accept, name="control", daemon=True)

    def __enter__(self) -> ControlServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        self._thread.join()
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            if self._places.acquire(blocking=False):
                threading.Thread(target=self._serve, args=(client,), name="control client", daemon=True).start()
            else:
                client.close()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, contextlib.suppress(OSError):  # a client that has gone needs no answer
                client.settimeout(READ_S)
                client.send(msgspec.json.encode(self._reply(client.recv(MAX_BYTES))))
        finally:
            self._places.release()

    def _reply(self, message: bytes) -> Reply:
        refused = None
        try:
            self._answer(msgspec.json.decode(message, type=Request))
        except msgspec.DecodeError as error:
            refused = Refusal("a request", "what `memrt service` sends", str(error), "use the same version of memrt")
        except MemrtError as error:
            refused = Refusal.of(error)
        return Reply(self._status(), refused)


def ask(request: Request, path: Path = CONTROL, timeout_s: float = ANSWER_S) -> dict[str, Any]:
    """The service's status once it has carried out the request. Raises MemrtError when it refuses or is not there."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            connection.send(msgspec.json.encode(request))
            reply = msgspec.json.decode(connection.recv(MAX_BYTES), type=Reply)
    except (OSError, msgspec.DecodeError) as error:
        permission = isinstance(error, PermissionError)
        raise MemrtError(
            f"the memrt service at {path}",
            expected=f"an answer within {timeout_s:g} s",
            found=error,
            fix="join the service's group (`sudo adduser $USER memrt`), or use sudo"
            if permission
            else "look at `memrt service logs` and `systemctl status memrt`",
        ) from error
    if reply.refused is not None:
        raise reply.refused.error()
    return reply.status


def await_health(path: Path = CONTROL, wait_s: float = 60.0) -> dict[str, Any]:
    """The service's status once it has looked at its health, or has waited `wait_s` for it; asked every second.

    Raises MemrtError when nobody answers then.
    """
    end_s = time.monotonic() + wait_s
    while True:
        left_s = end_s - time.monotonic()
        try:
            found = ask(Request("status"), path)
        except MemrtError:
            if left_s <= 0:
                raise
        else:
            if found["health"] is not None or left_s <= 0:
                return found
        time.sleep(min(1.0, max(0.0, left_s)))


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        if _somebody_listens(path):
            raise FileExistsError("another service that listens there")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(MODE)
        listener.listen(MAX_CLIENTS)
    except OSError as error:
        listener.close()
        raise MemrtError(
            f"control socket {path}",
            expected="a place for a socket file of the service's own",
            found=error,
            fix="end the other service (`systemctl stop memrt`), or name another place with --control",
        ) from error
    return listener


def _somebody_listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
