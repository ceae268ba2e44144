"""Starts a robot node as a child process, knows when it died and of what, and never leaves it behind."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from memrt.robot_io.parent import FOLDER_PREFIX, TOLD, forget_rings_of_the_dead, refusal_from_line
from memrt.runtime.errors import MemrtError

MODULE = "memrt.robot_io.serve_node"
LOG_LINES = 50
TERMINATE_S = 10.0  # the arm may take 2 s to come to rest, cameras and threads some more to close


class NodeProcess:
    """One child: `memrt node ROBOT` with a socket file in a folder of its own.

    The child has its own session, so that neither Ctrl-C nor the end of this process ends it before the arm is at rest;
    it notices the end of this process by itself, brakes, waits for rest and removes what it has made. `tell` gets, from
    a thread, what the child has to say to an operator: a camera that went or came back.
    """

    def __init__(
        self, robot: str, arguments: Sequence[str] = (), tell: Callable[[str], None] = lambda line: None
    ) -> None:
        self._tell = tell
        self._folder = tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX, ignore_cleanup_errors=True)
        self._log: deque[str] = deque(maxlen=LOG_LINES)
        self.endpoint = f"ipc://{Path(self._folder.name) / 'robot'}"
        command = [sys.executable, "-m", MODULE, robot, "--endpoint", self.endpoint, "--parent", str(os.getpid())]
        self._process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
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
        refusal = self.refusal()
        words = refusal or (self._log[-1] if self._log else "it said nothing")
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return f"`{MODULE}` ended with {how}: {words}"

    def refusal(self) -> MemrtError | None:
        """Why the child would not begin; None when it ended of something else, or has not ended."""
        if self._process.poll() is None:
            return None
        self._reader.join(1.0)
        return refusal_from_line(self._log[-1]) if self._log else None

    def close(self) -> None:
        """End the child, politely first, and remove its socket files and the frame rings that it may have left."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(TERMINATE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._reader.join(1.0)
        self._folder.cleanup()
        forget_rings_of_the_dead()

    def _read_log(self) -> None:
        assert self._process.stderr is not None, "stderr is a pipe"
        for line in self._process.stderr:
            if line.startswith(TOLD):
                self._tell(line.removeprefix(TOLD).strip())
            if line.strip():
                self._log.append(line.strip())
        self._process.stderr.close()
