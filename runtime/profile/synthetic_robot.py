"""Observations without a robot: seeded noise for every camera, joints that sway. For computers without a simulator."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from memrt.runtime.clock import NS_PER_S, Clock, MonotonicClock
from memrt.runtime.types import ARM_JOINTS, ActionChunk, Frame, ImageArray, Observation, RobotMode

POSTURE = np.array([0.0, -np.pi / 4, 0.0, -3 * np.pi / 4, 0.0, np.pi / 2, np.pi / 4])  # the FR3's start posture
SWAY_RAD, SWAY_S = 0.2, 5.0


@dataclass(frozen=True, slots=True)
class NoTask:
    """There is nothing to succeed in."""

    status: Literal["running"] = "running"
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class PastFrame:
    """Implements `BorrowedFrame`; it was made for whoever asked."""

    image: ImageArray
    index: int
    t_ns: int

    def release(self) -> None:
        """Nothing to let go."""


class SyntheticRobot:
    """Implements the loop's `TaskRobot`: chunks are taken and forgotten, nothing controls anything.

    Every camera gives `frame_hz` pictures a second. No two are alike, so no cache finds one it has seen: one picture of
    noise per camera is kept and the frame's number is written into its first pixels.
    """

    def __init__(
        self,
        cameras: tuple[str, ...],
        image_size: tuple[int, int],
        *,
        seed: int,
        frame_hz: float,
        clock: Clock | None = None,
    ) -> None:
        """`image_size` is (height, width) in pixels."""
        rng = np.random.default_rng(seed)
        self._noise = {camera: rng.integers(0, 256, (*image_size, 3), np.uint8) for camera in cameras}
        self._clock = clock or MonotonicClock()
        self._period_ns = round(NS_PER_S / frame_hz)
        self._began_ns = self._clock.now_ns()
        self._lock = threading.Lock()
        self._newest: Observation | None = None
        self._index = -1
        self.mode = RobotMode.DISARMED
        self.fault_reason = ""
        self.refused_in_a_row = 0
        self.outcome = NoTask()
        self.statistics: Mapping[str, Any] = {}

    def observe(self) -> Observation:
        """The newest pictures, and the joints at their time."""
        now_ns = self._clock.now_ns()
        with self._lock:
            index = (now_ns - self._began_ns) // self._period_ns
            if self._newest is None or index != self._index:
                self._index, self._newest = index, self._observation(index)
            return self._newest

    def at(self, camera: str, t_ns: int) -> PastFrame | None:
        """What `camera` showed at `t_ns`, drawn again: `FrameHistory`, as far back as this robot's first picture."""
        index = (t_ns - self._began_ns) // self._period_ns
        if index < 0 or camera not in self._noise:
            return None
        return PastFrame(_numbered(self._noise[camera], index), index, self._began_ns + index * self._period_ns)

    def send(self, chunk: ActionChunk) -> None:
        """Nothing executes it."""

    def arm(self) -> None:
        """Nothing moves."""
        self.mode = RobotMode.RUNNING

    def stop(self) -> None:
        """Nothing moves."""
        self.mode = RobotMode.STOPPED

    def resume(self) -> None:
        """Nothing moves."""
        self.mode = RobotMode.RUNNING

    def home(self) -> None:
        """Nothing moves."""

    def close(self) -> None:
        """Nothing is held."""

    def _observation(self, index: int) -> Observation:
        t_ns = self._began_ns + index * self._period_ns
        frames = {camera: Frame(camera, index, t_ns, _numbered(noise, index)) for camera, noise in self._noise.items()}
        proprioception = np.ones(ARM_JOINTS + 1)
        proprioception[:-1] = POSTURE + SWAY_RAD * np.sin(2 * np.pi * (t_ns - self._began_ns) / (SWAY_S * NS_PER_S))
        return Observation(t_ns, proprioception, frames, self)


def _numbered(noise: ImageArray, index: int) -> ImageArray:
    image = noise.copy()
    image.reshape(-1)[:8] = np.frombuffer(np.int64(index).tobytes(), np.uint8)
    return image
