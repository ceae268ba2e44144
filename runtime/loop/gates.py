"""What may reach the robot and what may reach the policy: checks of chunks and of cameras, pure."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.types import PROPRIOCEPTION_DIM, ActionChunk, FloatArray, Frame, Observation

# A camera that looks at the arm must see this much joint motion [rad]: at 0.5 m reach it is 1 cm, several pixels.
VISIBLE_MOTION_RAD = 0.02


def refuse_chunk(chunk: ActionChunk, horizon: int) -> str:
    """Why the chunk must not be played, or "" when it may."""
    if chunk.actions.shape != (horizon, PROPRIOCEPTION_DIM):
        return f"shape {list(chunk.actions.shape)} instead of [{horizon}, {PROPRIOCEPTION_DIM}]"
    if not np.isfinite(chunk.actions).all():
        return "non-finite action"
    if chunk.dt_ns <= 0:
        return f"dt of {chunk.dt_ns} ns"
    return ""


def oldest_frame_ns(observation: Observation, cameras: Iterable[str]) -> int | None:
    """The time of the least recent frame among `cameras`, None while one of them has given none."""
    times = [observation.frames[name].t_ns if name in observation.frames else None for name in cameras]
    known = [t for t in times if t is not None]
    if len(known) < len(times):
        return None
    return min(known, default=observation.t_ns)


def camera_state(now_ns: int, oldest_ns: int, settings: LoopSettings) -> Literal["fresh", "stale", "lost"]:
    """Fresh: use it. Stale: start no inference. Lost: hold until an operator resumes."""
    age_ns = now_ns - oldest_ns
    if age_ns > settings.camera_lost_ns:
        return "lost"
    return "stale" if age_ns > settings.camera_stale_ns else "fresh"


@dataclass(slots=True)
class _Picture:
    index: int
    digest: int
    joints: FloatArray
    first_seen_ns: int
    frozen: bool = False


class FrozenImageDetector:
    """Finds the camera whose index rises while its picture stays, bit for bit, the same although the arm moved.

    Such a camera looks alive by its timestamps. `effective_ns` is the time its picture last changed, which the age
    gates then treat like any other frame time.
    """

    def __init__(self) -> None:
        self._pictures: dict[str, _Picture] = {}

    def effective_ns(self, frame: Frame, proprioception: FloatArray) -> int:
        """The time for the age gates: the frame's own, or for a frozen picture the time it was first seen."""
        picture = self._pictures.get(frame.camera)
        if picture is None or picture.index != frame.index:
            digest = zlib.crc32(np.ascontiguousarray(frame.image).data)
            if picture is None or picture.digest != digest:
                picture = _Picture(frame.index, digest, proprioception[:-1].copy(), frame.t_ns)
                self._pictures[frame.camera] = picture
            else:
                picture.index = frame.index
                moved_rad = float(np.abs(proprioception[:-1] - picture.joints).max())
                picture.frozen = picture.frozen or moved_rad > VISIBLE_MOTION_RAD
        return picture.first_seen_ns if picture.frozen else frame.t_ns
