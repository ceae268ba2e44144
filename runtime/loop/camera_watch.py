"""How old the pictures are that a policy would be shown: one account of all cameras for the loop's three threads."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from memrt.runtime.clock import NS_PER_S
from memrt.runtime.types import FloatArray, Frame, ImageArray, Observation

# A camera that looks at the arm must see this much joint motion [rad]: at 0.5 m reach it is 1 cm, several pixels.
VISIBLE_MOTION_RAD = 0.02
GLANCE_ROWS = 16  # every so many rows are compared first: live pictures differ there already


@dataclass(frozen=True, slots=True)
class OldestPicture:
    """The least recent of the pictures a policy needs; `t_ns` is when a frozen one was first seen.

    `camera` is "" where none is needed: then it is the observation itself.
    """

    camera: str
    t_ns: int
    frozen: bool = False

    def trouble(self, now_ns: int) -> str:
        """What is wrong with it, for people."""
        age_s = (now_ns - self.t_ns) / NS_PER_S
        if not self.camera:
            return f"no new observation for {age_s:.1f} s"
        if self.frozen:
            return f"camera `{self.camera}` is frozen: the same picture for {age_s:.1f} s although the arm moved"
        return f"camera `{self.camera}` is lost: no new picture for {age_s:.1f} s"


class CameraWatch:
    """Every method may be called from any thread.

    The supervisor looks at every frame; so a picture that freezes is found however seldom the policies are called.
    """

    def __init__(self, cameras: Iterable[str]) -> None:
        self._cameras = tuple(cameras)
        self._frozen = FrozenImageDetector()
        self._lock = threading.Lock()

    def oldest(self, observation: Observation, *, since_ns: int | None = None) -> OldestPicture | None:
        """The oldest of the cameras' pictures; where no camera is needed it is the observation itself.

        While a camera has given none: None, or, with `since_ns`, that camera, waited for since then.
        """
        frames = []
        for name in self._cameras:
            if name not in observation.frames:
                return None if since_ns is None else OldestPicture(name, since_ns)
            frames.append(observation.frames[name])
        with self._lock:
            pictures = [self._frozen.look(frame, observation.proprioception) for frame in frames]
        return min(pictures, key=lambda picture: picture.t_ns, default=OldestPicture("", observation.t_ns))


@dataclass(slots=True)
class _Seen:
    image: ImageArray
    joints: FloatArray
    first_ns: int
    newest_ns: int
    frozen: bool = False


class FrozenImageDetector:
    """Finds the camera whose index rises while its picture stays, bit for bit, the same although the arm moved.

    Such a camera looks alive by its timestamps, so the age gates are given the time its picture was first seen. While
    the arm stands still, the same picture may be a true one. Keeps one image of each camera.
    """

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def look(self, frame: Frame, proprioception: FloatArray) -> OldestPicture:
        """The frame's picture and its time for the age gates. A frame older than one seen before changes nothing."""
        seen = self._seen.get(frame.camera)
        if seen is None or (frame.t_ns > seen.newest_ns and not _same(frame.image, seen.image)):
            seen = _Seen(frame.image, proprioception[:-1].copy(), frame.t_ns, frame.t_ns)
            self._seen[frame.camera] = seen
        elif frame.t_ns > seen.newest_ns:
            seen.newest_ns = frame.t_ns
            moved_rad = float(np.abs(proprioception[:-1] - seen.joints).max())
            seen.frozen = seen.frozen or moved_rad > VISIBLE_MOTION_RAD
        return OldestPicture(frame.camera, seen.first_ns if seen.frozen else frame.t_ns, seen.frozen)


def _same(one: ImageArray, other: ImageArray) -> bool:
    return np.array_equal(one[::GLANCE_ROWS], other[::GLANCE_ROWS]) and np.array_equal(one, other)
