"""A camera whose every read is written down: pictures, silence, failures."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator

import numpy as np

from memrt.robot_io.cameras.settings import CameraConfig
from memrt.robot_io.cameras.source import CameraEnded, Picture
from memrt.runtime.errors import MemrtError

CONFIG = CameraConfig(kind="replay", path="unused", width=8, height=6, fps=100)


def gone() -> MemrtError:
    return MemrtError("camera `front`", expected="a frame", found="none", fix="plug it in")


def picture(number: int, t_ns: int | None = None) -> Picture:
    return Picture(np.full((6, 8, 3), number % 256, np.uint8), time.monotonic_ns() if t_ns is None else t_ns, number)


class Script:
    """`open` gives a new source that goes through the next list of reads, and then is silent."""

    def __init__(self, *sessions: list) -> None:
        self.sessions = list(sessions)
        self.opened, self.closed = 0, 0
        self.go = threading.Event()
        self.go.set()

    def open(self, name: str, config: CameraConfig) -> Script.Source:
        self.opened += 1
        if not self.sessions:
            raise gone()
        return Script.Source(self, self.sessions.pop(0))

    class Source:
        def __init__(self, script: Script, reads: list) -> None:
            self._script, self._reads = script, list(reads)

        def read(self, timeout_s: float) -> Picture | None:
            if not self._reads:
                time.sleep(min(timeout_s, 0.005))
                return None
            self._script.go.wait(timeout_s)
            item = self._reads.pop(0)
            if isinstance(item, Exception):
                raise item
            return item

        def close(self) -> None:
            self._script.closed += 1


class Feed:
    """A camera that gives what a test puts in, when it puts it in."""

    def __init__(self) -> None:
        self._pictures: queue.SimpleQueue[Picture] = queue.SimpleQueue()
        self.put = self._pictures.put

    def open(self, name: str, config: CameraConfig) -> Feed:
        return self

    def read(self, timeout_s: float) -> Picture | None:
        try:
            return self._pictures.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def close(self) -> None:
        pass


def all_pictures(source, timeout_s: float = 0.2) -> Iterator[Picture]:
    """Until the camera ends."""
    with contextlib.suppress(CameraEnded):
        while True:
            if (read := source.read(timeout_s)) is not None:
                yield read


def eventually(condition, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
