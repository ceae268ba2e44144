"""The doubles stand for computers of their own: on this one they go before everything else, where that is permitted."""

from __future__ import annotations

import os

# SCHED_FIFO priorities; our control threads have 80. Pictures are not drawn at one: FIFO threads that together take
# more than 95 % of a core are halted for 50 ms.
WATCH = 90  # of the threads that notice stalls, above all others
CONTROL_UNIT = 10


def real_time(priority: int) -> bool:
    """Make the calling thread one of the real-time class; False where that takes a right we do not have."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except PermissionError:
        return False
    return True
