"""Who goes first among the threads of one robot's node, where the system permits it.

The seam's control loop runs under SCHED_FIFO 80. libfranka raises its own thread only when `realtime` is enforced;
otherwise the thread has the class of the one that starts it, here FIFO 79. The forwarding in Python has FIFO 70, above
everything else of this computer. All of them sleep most of the time. The rest of the node has nice −10.
"""

from __future__ import annotations

import os

LIBFRANKA, FORWARDING = 79, 70


def set_priority(priority: int) -> bool:
    """Put the calling thread under SCHED_FIFO; threads that it starts are, too. False where that is not permitted."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))  # 0: this thread (Linux)
    except PermissionError:
        return False
    return True
