"""The strict double's own program: franka-sim with both of its enforcement switches on, on one address.

It runs in an environment of its own (`make strict`), because franka-sim wants an older numpy and MuJoCo than we do, and
therefore imports nothing of ours. Its log, one JSON object per line with CLOCK_MONOTONIC times, goes to stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import signal
import threading
import time
from pathlib import Path

LOOK_S = 1.0
NICE = -20  # where permitted: a robot's control unit does nothing else


class JsonLines(logging.Formatter):
    """A record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level and text."""
        return json.dumps({"t_ns": time.monotonic_ns(), "level": record.levelname, "text": record.getMessage()})


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="the loopback address to listen on, ports 1337 and 1338")
    options = parser.parse_args()
    handler = logging.StreamHandler(open(1, "w", buffering=1))  # noqa: SIM115 - stdout, a line at a time
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    from franka_sim import FrankaSimServer

    with contextlib.suppress(OSError):  # not permitted: expect aborts that are this computer's
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
        Path("/proc/self/autogroup").write_text(str(NICE))
    server = FrankaSimServer(
        host=options.host, physics="mujoco", enforce_comm_constraints=True, enforce_motion_limits=True
    )

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    threading.Thread(target=_end_with, args=(os.getppid(),), name="parent", daemon=True).start()
    try:
        server.start()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()


def _end_with(parent: int) -> None:
    """Nobody wants a robot whose starter has ended."""
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
