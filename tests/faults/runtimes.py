"""Runtimes in processes of their own, to be killed and stopped."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = Path(__file__).with_name("runtime_process.py")


class Runtime:
    """A runtime in a process of its own, with its loop and its threads."""

    def __init__(self, endpoint: str) -> None:
        self.process = subprocess.Popen([sys.executable, str(PROGRAM), endpoint], stdout=subprocess.PIPE, text=True)

    def follows(self) -> bool:
        """Wait until its chunks have left; False when it has ended because this computer held it up."""
        self.first = self.process.stdout.readline()
        return self.first == "following\n"

    def send(self, number: int) -> int:
        """Send a signal; when."""
        self.process.send_signal(number)
        return time.monotonic_ns()

    def told(self) -> dict:
        """How its run ended, in its own words."""
        out, _ = self.process.communicate(timeout=180)
        assert self.process.returncode == 0
        return json.loads(out.splitlines()[-1])

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
