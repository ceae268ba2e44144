"""The recorder's own process: writes one MCAP file, and is the first to go when memory runs out.

`python -m memrt.runtime.recording.writer` reads orders from stdin and answers on stdout. It is a process of its own so
that the kernel can end it alone: it puts itself first in the kernel's line (`oom_score_adj` 1000, proc(5)), which needs
no privilege, while the policies and the robot's node stay. When its orders end without a `Finish`, the runtime has
died: what had come until then is written.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from memrt.runtime.recording.mcap_file import McapFile
from memrt.runtime.recording.messages import channel_of

FIRST_TO_GO = 1000  # of 1000
NICE = 15  # below both policies
LENGTH_BYTES = 4
MAX_ORDER_BYTES = 1 << 28  # more than any picture


class Order(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """What the process is told. Each is preceded by its length, 4 bytes, little-endian."""


class Begin(Order, frozen=True):
    """Create the file. Answered."""

    path: str
    library: str


class Metadata(Order, frozen=True):
    """One metadata record."""

    name: str
    values: dict[str, str]


class Write(Order, frozen=True):
    """One message, as msgpack."""

    topic: str
    t_ns: int
    sequence: int
    message: bytes


class Flush(Order, frozen=True):
    """Wait until the disk has it all. Answered."""


class Finish(Order, frozen=True):
    """Write the index and the footer. Answered."""


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """The file's size; or what failed, in the system's words and as errno, and then no other answer comes."""

    bytes_written: int
    error: int = 0
    words: str = ""


AnyOrder = Begin | Metadata | Write | Flush | Finish


def framed(message: msgspec.Struct) -> bytes:
    """A message with its length before it."""
    data = msgspec.msgpack.encode(message)
    return len(data).to_bytes(LENGTH_BYTES, "little") + data


def orders(stream: BinaryIO) -> Iterator[AnyOrder]:
    """The orders of a stream, until it ends; one that was cut off is none."""
    decoder = msgspec.msgpack.Decoder(AnyOrder)
    while len(head := stream.read(LENGTH_BYTES)) == LENGTH_BYTES:
        length = int.from_bytes(head, "little")
        if length > MAX_ORDER_BYTES or len(data := stream.read(length)) < length:
            return
        yield decoder.decode(data)


def serve(incoming: BinaryIO, outgoing: BinaryIO) -> None:
    """Carry out orders until the file is finished, or there are no more."""
    file: McapFile | None = None
    try:
        for order in orders(incoming):
            if isinstance(order, Begin):
                file = McapFile(Path(order.path), order.library)
            elif file is not None:
                _carry_out(order, file)
            if file is not None and isinstance(order, Begin | Flush | Finish):
                _answer(outgoing, Answer(file.bytes_written))
            if isinstance(order, Finish):
                return
        if file is not None:
            file.flush()
    except OSError as error:
        _answer(outgoing, Answer(0, error.errno or 0, error.strerror or repr(error)))
    finally:
        if file is not None:
            file.close()


def _carry_out(order: AnyOrder, file: McapFile) -> None:
    if isinstance(order, Write):
        known = channel_of(order.topic)
        assert known is not None, f"no channel {order.topic}"
        file.write(order.topic, order.t_ns, msgspec.msgpack.decode(order.message, type=known[1]), order.sequence)
    elif isinstance(order, Metadata):
        file.metadata(order.name, order.values)
    elif isinstance(order, Flush):
        file.flush()
    elif isinstance(order, Finish):
        file.finish()


def _answer(outgoing: BinaryIO, answer: Answer) -> None:
    outgoing.write(framed(answer))
    outgoing.flush()


def main() -> None:
    """The process."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a service's end is the runtime's to tell
        signal.signal(number, signal.SIG_IGN)
    Path("/proc/self/oom_score_adj").write_text(str(FIRST_TO_GO), encoding="ascii")
    os.setpriority(os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    with contextlib.suppress(OSError):  # autogroups would weigh this session as much as the policies' (sched(7))
        Path("/proc/self/autogroup").write_text(str(NICE), encoding="ascii")
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
