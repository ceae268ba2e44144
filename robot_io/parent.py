"""What a node that another process has started owes to it: an end of its own, nothing left behind, and plain words."""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from memrt.runtime.errors import MemrtError

TOLD = "node: "  # begins a line on stderr that is meant for the parent's operator
FOLDER_PREFIX = "memrt-"  # of the folder that holds a child's sockets
RINGS = Path("/dev/shm")  # where Linux keeps shared memory that has a name


def when_ended(parent: int, call: Callable[[], None]) -> None:
    """Call back, from a thread, once the process `parent` has ended in whatever way, or if it has already.

    Not Linux's parent-death signal: that one comes when the parent's *thread* ends, and is easily lost.
    """
    try:
        descriptor = os.pidfd_open(parent)
    except ProcessLookupError:
        descriptor = -1
    if descriptor < 0 or os.getppid() != parent:  # it ended before this process looked, and may be another one by now
        call()
        return

    def wait() -> None:
        select.select([descriptor], [], [])
        os.close(descriptor)
        call()

    threading.Thread(target=wait, name="parent", daemon=True).start()


def forget_sockets(endpoint: str, *, folder: bool = False) -> None:
    """Remove the socket files of an `ipc://` endpoint, which ZMQ leaves behind; with `folder` also what they lie in.

    Only a folder that `NodeProcess` has made for its child is removed.
    """
    if not endpoint.startswith("ipc://"):
        return
    base = Path(endpoint.removeprefix("ipc://"))
    with contextlib.suppress(OSError):  # the parent may be removing it, too
        for socket in base.parent.glob(f"{base.name}.*"):
            socket.unlink(missing_ok=True)
        if folder and base.parent.name.startswith(FOLDER_PREFIX):
            base.parent.rmdir()


def forget_rings_of_the_dead(folder: Path = RINGS) -> None:
    """Remove the frame rings of processes that have ended without a chance to: 22 MB of memory each until then.

    A ring is called `memrt-<process>-<camera>`. Whoever still reads one keeps it: only its name goes.
    """
    for ring in folder.glob("memrt-*-*"):
        writer = ring.name.split("-")[1]
        if writer.isdigit() and not Path("/proc", writer).exists():
            with contextlib.suppress(OSError):  # another user's, or another node removes it, too
                ring.unlink(missing_ok=True)


def refusal_to_line(error: MemrtError) -> str:
    """A refusal on its way to the parent."""
    return msgspec.json.encode(list(error.parts.values())).decode()


def refusal_from_line(line: str) -> MemrtError | None:
    """The refusal that a child has sent, or None when the line is anything else."""
    try:
        what, expected, found, fix = msgspec.json.decode(line, type=tuple[str, str, str, str])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return MemrtError(what, expected=expected, found=found, fix=fix)
