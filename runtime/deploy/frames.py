"""What travels over one ssh connection: frames of five bytes and a payload, either a message or a piece of a file.

A frame is its payload's length (four bytes, big-endian), its kind (one byte) and the payload. Messages are msgpack of
the structs in `messages.py`; anything longer than the bounds here, or unknown, ends the connection.
"""

from __future__ import annotations

import os
import select
import struct
import threading
import time
from typing import Final

import msgspec

from memrt.runtime.deploy.messages import MESSAGES, Alive, Message
from memrt.runtime.errors import MemrtError

PIECE_BYTES: Final = 1 << 20  # of a file, in one frame
_MESSAGE_BYTES: Final = 8 << 20  # a manifest has at most half of it
_HEADER: Final = struct.Struct(">IB")
_MESSAGE, _DATA = 0, 1
ALIVE_S: Final = 2.0  # between two signs of life from the workstation
SILENCE_S: Final = 15.0  # without any: the connection is taken for cut
_READ_BYTES: Final = 1 << 18


class CutConnectionError(Exception):
    """The other side has gone, or has been silent for too long. The text says which."""


class Channel:
    """Frames over two descriptors. Reading is for one thread; several may send."""

    def __init__(self, read: int, write: int, silence_s: float | None = SILENCE_S) -> None:
        """`silence_s`: how long to wait for bytes that are due; None waits as long as the connection lives."""
        self._read, self._write, self._silence_s = read, write, silence_s
        self._buffer = bytearray()
        self._heard_ns = time.monotonic_ns()
        self._sending = threading.Lock()

    def fileno(self) -> int:
        """For `select`."""
        return self._read

    def send(self, message: Message) -> None:
        """Send a message. Raises CutConnectionError when nobody reads any more."""
        self._send(_MESSAGE, MESSAGES.encode(message))

    def send_data(self, piece: bytes | memoryview) -> None:
        """Send at most PIECE_BYTES of a file; raises as `send`."""
        self._send(_DATA, piece)

    def receive(self) -> Message | bytes:
        """The next message that is no sign of life, or piece of a file. Raises CutConnectionError, or MemrtError."""
        while True:
            size, kind = _parse_header(self._take(_HEADER.size))
            payload = bytes(self._take(size))
            if kind == _DATA:
                return payload
            if not isinstance(message := _parse_message(payload), Alive):
                return message

    def lives(self) -> None:
        """Take in what is there, without waiting: only signs of life may be. Raises as `receive`."""
        while select.select([self._read], [], [], 0)[0]:
            self._fill()
        if self._silence_s is not None and seconds_since(self._heard_ns) > self._silence_s:
            raise self._silent()
        while len(self._buffer) >= _HEADER.size:
            size, kind = _parse_header(self._buffer[: _HEADER.size])
            whole = _HEADER.size + size
            if kind == _DATA:
                raise _nonsense("a piece of a file, out of turn")
            if len(self._buffer) < whole:
                return
            if not isinstance(_parse_message(bytes(self._buffer[_HEADER.size : whole])), Alive):
                raise _nonsense("a message, out of turn")
            del self._buffer[:whole]

    def _send(self, kind: int, payload: bytes | memoryview) -> None:
        with self._sending:
            try:
                for part in (_HEADER.pack(len(payload), kind), payload):
                    view = memoryview(part)
                    while view:
                        view = view[os.write(self._write, view) :]
            except OSError as error:
                raise CutConnectionError(error.strerror) from error

    def _take(self, size: int) -> bytearray:
        while len(self._buffer) < size:
            if self._silence_s is not None and not select.select([self._read], [], [], self._silence_s)[0]:
                raise self._silent()
            self._fill()
        taken = self._buffer[:size]
        del self._buffer[:size]
        return taken

    def _fill(self) -> None:
        try:
            found = os.read(self._read, _READ_BYTES)
        except OSError as error:
            raise CutConnectionError(error.strerror) from error
        if not found:
            raise CutConnectionError("the connection was closed")
        self._buffer += found
        self._heard_ns = time.monotonic_ns()

    def _silent(self) -> CutConnectionError:
        return CutConnectionError(f"nothing was heard for {self._silence_s:g} s")


class Heartbeat:
    """Sends signs of life from a thread of its own while the block runs."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._end.wait(ALIVE_S):
            try:
                self._channel.send(Alive())
            except CutConnectionError:
                return  # whoever reads will notice


def seconds_since(began_ns: int) -> float:
    """Seconds since a moment of the monotonic clock."""
    return (time.monotonic_ns() - began_ns) / 1e9


def _parse_header(header: bytearray) -> tuple[int, int]:
    """Size and kind of the payload to come. Raises MemrtError for a frame that nobody sends."""
    size, kind = _HEADER.unpack(header)
    if kind not in (_MESSAGE, _DATA) or size > (_MESSAGE_BYTES if kind == _MESSAGE else PIECE_BYTES):
        raise _nonsense(f"a frame of kind {kind} with {size} bytes")
    return size, kind


def _parse_message(payload: bytes) -> Message:
    try:
        return MESSAGES.decode(payload)
    except msgspec.MsgspecError as error:
        raise _nonsense(error) from error


def _nonsense(found: object) -> MemrtError:
    return MemrtError(
        "the connection to the robot's computer",
        expected="frames of memrt's flash protocol",
        found=found,
        fix="let nothing print on login there (~/.bashrc), and use the same version of memrt on both sides",
    )
