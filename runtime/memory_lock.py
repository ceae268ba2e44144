"""Keeps what a process has once touched in memory: no page of it is written out or read again while a robot moves."""

from __future__ import annotations

import ctypes
import os
import resource

_CURRENT, _FUTURE, _ONFAULT = 1, 2, 4  # mlockall(2); ONFAULT (Linux 4.4): what is never touched takes no memory


def lock_memory() -> bool:
    """Lock this process's memory, where its limit has been lifted (`LimitMEMLOCK=infinity`); whether it is locked.

    Without such a limit nobody has asked for it, root included: a memory lock takes memory from everybody else.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft != resource.RLIM_INFINITY or os.uname().sysname != "Linux":
        return False
    return bool(ctypes.CDLL(None).mlockall(_CURRENT | _FUTURE | _ONFAULT) == 0)
