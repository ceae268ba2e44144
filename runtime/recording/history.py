"""A robot's frames over time, looked through while a run is recorded, and given again at a replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from memrt.runtime.loop.step_frames import LentFrame
from memrt.runtime.recording.messages import FrameRef, Look
from memrt.runtime.types import BorrowedFrame, Frame, FrameHistory


class WatchedHistory:
    """A `FrameHistory` that notes what is asked of it, and shows every frame that is lent to `look`."""

    def __init__(self, history: FrameHistory, look: Callable[[str, BorrowedFrame], None]) -> None:
        self._history, self._look = history, look
        self.looks: list[Look] = []

    def at(self, camera: str, t_ns: int) -> BorrowedFrame | None:
        """What the robot's history gives."""
        lent = self._history.at(camera, t_ns)
        self.looks.append(Look(camera, t_ns, FrameRef(camera, lent.index, lent.t_ns) if lent is not None else None))
        if lent is not None:
            self._look(camera, lent)
        return lent


class RecordedHistory:
    """A `FrameHistory` that answers what it was asked when it was recorded, and knows nothing else."""

    def __init__(self, frames: Mapping[tuple[str, int], Frame]) -> None:
        """`frames` by camera and the time that was asked for."""
        self._frames = frames

    def at(self, camera: str, t_ns: int) -> BorrowedFrame | None:
        """The frame that was lent then."""
        frame = self._frames.get((camera, t_ns))
        return LentFrame(frame.image, frame.index, frame.t_ns) if frame is not None else None
