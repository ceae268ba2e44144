"""Starts a robot node as a child process, knows when it died and of what, and never leaves it behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

LOG_LINES = 50
TERMINATE_S = 5.0


class NodeProcess:
    """One child: `python -m module --endpoint ... --parent ...`. Its endpoint is a socket file in an own folder.

    Start it from the main thread: Linux delivers the parent-death signal when the *thread* that started it ends. The
    child stays in this session, because Linux's autogroups make niceness count only among the processes of one session.
    """

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="memrt-")
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        self.endpoint = f"ipc://{Path(self._folder.name) / 'robot'}"
        command = [sys.executable, "-m", module, "--endpoint", self.endpoint, "--parent", str(os.getpid()), *arguments]
        self._module = module
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read_log, name="node log", daemon=True)
        self._reader.start()

    @property
    def process_id(self) -> int:
        """The child's process number."""
        return self._process.pid

    def alive(self) -> str:
        """The empty text while the child runs, else how it ended and its last words."""
        status = self._process.poll()
        if status is None:
            return ""
        self._reader.join(1.0)
        words = self._log[-1] if self._log else "it said nothing"
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return f"`{self._module}` ended with {how}: {words}"

    def close(self) -> None:
        """End the child, politely first, and remove its socket files and the frame rings that carry its number."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(TERMINATE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(1.0)
        self._folder.cleanup()
        for leftover in Path("/dev/shm").glob(f"memrt-{self._process.pid}-*"):  # of a child that could not clean up
            leftover.unlink(missing_ok=True)

    def _read_log(self) -> None:
        assert self._process.stderr is not None, "stderr is a pipe"
        for line in self._process.stderr:
            if line.strip():
                self._log.append(line.strip())
        self._process.stderr.close()
