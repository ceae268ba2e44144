"""Frames of the cameras on this computer, read out of the shared-memory rings that the robot's node writes."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np

from memrt.runtime._core import FrameRing
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import Frame


class FrameReader:
    """Keeps the newest frame of each camera. A frame is copied once (0.2 MB), so that it outlives its slot.

    Every method may be called from any thread.
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

    def close(self) -> None:
        """Let the rings go."""
        with self._lock:
            for ring in self._rings.values():
                ring.close()
            self._rings.clear()
