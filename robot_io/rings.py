"""Frames of the cameras on this computer, read out of the shared-memory rings that the robot's node writes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping

import numpy as np

from memrt.runtime._core import BorrowedFrame, FrameRing
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import Frame

RECENT_FRAMES = 3  # of each camera, among which the nearest to another camera's newest is looked for


class FrameReader:
    """The newest frame of each camera, copied once (0.2 MB) so that it outlives its slot, and those before, in place.

    Implements `FrameHistory`; it reaches back as far as the node's rings do. Every method may be called from any
    thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rings: dict[str, FrameRing] = {}
        self._newest: dict[str, Frame] = {}

    def open(self, rings: Mapping[str, str]) -> None:
        """Open the ring of each camera. Raises MemrtError when one is not there."""
        for camera, name in rings.items():
            try:
                self._rings[camera] = FrameRing.open(name)
            except (RuntimeError, ValueError) as error:
                raise MemrtError(
                    f"camera `{camera}`",
                    expected=f"a shared-memory ring named {name}",
                    found=error,
                    fix="start the robot's node again",
                ) from error

    def latest(self) -> dict[str, Frame]:
        """The newest frame of every camera that has given one."""
        with self._lock:
            for camera, ring in self._rings.items():
                borrowed = ring.borrow()
                if borrowed is None:
                    continue
                with borrowed:
                    known = self._newest.get(camera)
                    if known is None or known.index != borrowed.index:
                        image = np.array(borrowed.image)
                        self._newest[camera] = Frame(camera, borrowed.index, borrowed.t_ns, image)
            return dict(self._newest)

    def at(self, camera: str, t_ns: int) -> BorrowedFrame | None:
        """The newest frame not younger than `t_ns`, pinned in its slot until released."""
        with self._lock:
            ring = self._rings.get(camera)
            return ring.borrow(t_ns) if ring is not None else None

    @contextlib.contextmanager
    def recent(self) -> Iterator[dict[str, list[Frame]]]:
        """The last frames of every camera, in rising time, pinned in their slots inside the `with` block."""
        with contextlib.ExitStack() as pinned, self._lock:
            frames: dict[str, list[Frame]] = {}
            for camera, ring in self._rings.items():
                frames[camera] = []
                borrowed = ring.borrow()
                while borrowed is not None:
                    pinned.enter_context(borrowed)
                    frames[camera].insert(0, Frame(camera, borrowed.index, borrowed.t_ns, borrowed.image))
                    enough = len(frames[camera]) == RECENT_FRAMES
                    borrowed = None if enough else ring.borrow(borrowed.t_ns - 1)
            yield frames

    def close(self) -> None:
        """Let the rings go."""
        with self._lock:
            for ring in self._rings.values():
                ring.close()
            self._rings.clear()
