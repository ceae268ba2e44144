"""A dead man's switch: a process of its own that goes back to the old bundle when the flash dies undecided.

The flash may be killed, run out of memory or hit a bug between the switch and the decision. The kernel then closes
its end of a pipe; the watcher, which has nothing else to do, reads that end of file and recovers.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)


@contextmanager
def dead_man(recover: Callable[[], None]) -> Iterator[None]:
    """Call `recover` in another process once this one has left the block, or died in it.

    `recover` must do nothing when everything was decided. Call it before any thread is started: it forks. The watcher
    keeps the lock that this process holds, and returns only after `recover`.
    """
    read, write = os.pipe()
    watcher = os.fork()
    if watcher == 0:
        try:
            os.setsid()
            for number in _IGNORED:
                signal.signal(number, signal.SIG_IGN)
            os.close(write)
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):  # or the ssh connection would stay open with it
                os.dup2(nothing, stream)
            os.read(read, 1)
            recover()
        finally:
            os._exit(0)
    os.close(read)
    try:
        yield
    finally:
        os.close(write)
        os.waitpid(watcher, 0)
