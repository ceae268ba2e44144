"""Which computer this is, and who goes first on it (Linux)."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

OUTLIVES = -900  # of -1000, "never": a node that leaks is ended after all (proc(5))


def computer_id() -> str:
    """The same text for every process of this computer until it boots again: they share clock and shared memory."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def outrank(nice: int) -> bool:
    """Let the calling thread, and the threads it starts, go before others on this computer (Linux: nice is per thread).

    Takes root or CAP_SYS_NICE; False where that is not granted, which is the usual case and no error.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
    except PermissionError:
        return False
    return True


def outlive() -> None:
    """Let the kernel end other processes first when memory runs out; nothing where it is not granted (root)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OUTLIVES), encoding="ascii")


def session_outranks(nice: int) -> None:
    """Let this process's session go before others, as `outrank` does for a thread; nothing where it is not granted.

    Linux's autogroups (sched(7)) share the processor between sessions first, and only then look at niceness, each
    session by itself. A process in a session of its own must therefore raise its session too. Kernels without
    autogroups, and processes inside a CPU control group, know no such file or ignore it: there niceness alone counts.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(nice), encoding="ascii")
