"""Who goes first among the threads of one robot's node, where the system permits it.

The seam's control loop runs under SCHED_FIFO 80. libfranka raises its own thread only when `realtime` is enforced;
otherwise the thread has the class of the one that starts it, here FIFO 79. The forwarding in Python has FIFO 70. It
shares Python's lock with the node's own thread and those of link and hand, which therefore have FIFO 60: whoever holds
that lock must not wait for the rest of the computer. All of them sleep most of the time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

LIBFRANKA, FORWARDING, NODE = 79, 70, 60


def set_priority(priority: int) -> bool:
    """Put the calling thread under SCHED_FIFO; threads that it starts are, too. False where that is not permitted."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))  # 0: this thread (Linux)
    except PermissionError:
        return False
    return True


@contextlib.contextmanager
def priority(number: int) -> Iterator[None]:
    """`set_priority` for a while; threads that are started meanwhile keep it."""
    policy, before = os.sched_getscheduler(0), os.sched_getparam(0)
    set_priority(number)
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, policy, before)
