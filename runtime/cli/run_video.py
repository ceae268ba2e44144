"""The video of a real-time run: a thread that takes the newest frame 20 times a second and never holds up the loop."""

from __future__ import annotations

import os
import threading
import time
from types import TracebackType

from memrt.runtime.errors import MemrtError
from memrt.runtime.live_status import memory_texts
from memrt.runtime.loop.protocols import TaskRobot
from memrt.runtime.loop.realtime import LoopStatus, RealtimeLoop
from memrt.runtime.video import FPS, VideoWriter

NICE = 15  # below both policies: the video may drop frames, the robot may not


def video_texts(status: LoopStatus) -> list[tuple[str, str]]:
    """The lines below the picture."""
    subgoal = [("subgoal", status.subgoal.text)] if status.subgoal else []
    hold = [("hold", status.hold_reason)] if status.hold_reason else []
    return [("goal", status.goal), *subgoal, *memory_texts(status.memory), *hold]


class VideoThread:
    """A context manager: records while it is open. A frame that was seen already is written again, to keep time."""

    def __init__(self, video: VideoWriter, robot: TaskRobot, loop: RealtimeLoop, camera: str) -> None:
        self._video, self._robot, self._loop, self._camera = video, robot, loop, camera
        self._quit = threading.Event()
        self._thread = threading.Thread(target=self._record, name="video", daemon=True)

    def __enter__(self) -> VideoThread:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._quit.set()
        self._thread.join()

    def _record(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        next_s = time.monotonic()
        while not self._quit.wait(max(0.0, next_s - time.monotonic())):
            try:
                frame = self._robot.observe().frames.get(self._camera)
            except MemrtError:  # the robot is gone; the loop says so
                return
            if frame is not None:
                self._video.add(frame.image, video_texts(self._loop.status()))
            next_s = max(next_s + 1 / FPS, time.monotonic() - 1.0)  # after a long stall, skip instead of racing
