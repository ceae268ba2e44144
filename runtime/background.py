"""Standing back on the CPU: the high level computes when nothing else wants the core.

Linux gives every thread its own nice value and scheduling policy, and a new thread inherits its creator's. ONNX Runtime
creates a session's pool in the thread that opens the session: engines that are to stand back are opened by a thread
that stands back itself. There is no way up again without privileges, so that thread is a new one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# A tenth of a normal thread's share when both want the core (weight 110 against 1024). Not SCHED_IDLE: the high level
# would hold Python's lock for as long as anything else computes, and with it the low level.
BACKGROUND_NICE = 10


def stand_back() -> None:
    """Let the calling thread, and those it will create, compute behind all normal ones. No effect but on Linux."""
    if not hasattr(os, "sched_setscheduler"):
        return
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # does not preempt as it wakes up
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BACKGROUND_NICE)


def in_background(work: Callable[[], T]) -> T:
    """Do `work` in a thread that stands back and wait for it: threads that it starts stand back for good.

    Raises what `work` raises.
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            stand_back()
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="opens in the background")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]
