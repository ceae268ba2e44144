"""Which computer this is, who goes first on it, and how a child is tied to the life of its parent (Linux)."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h


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


def die_with_parent(parent: int) -> None:
    """Get SIGTERM when the process `parent`, which started this one, ends in whatever way, or has already ended."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
