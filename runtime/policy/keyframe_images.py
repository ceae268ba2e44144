"""The images of a keyframe memory's requests: recent frames out of the robot's history, keyframes out of the store.

A recent frame is looked at in place, pinned only while a call runs. Several views become one image of their own, made
once per tick and kept while the tick is recent. What a tick first looked like stays: its content id names it for the
vision features, now and as a keyframe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from memrt.runtime.errors import MemrtError
from memrt.runtime.keyframes_config import KeyframesConfig
from memrt.runtime.memory.keyframes import KeyframeVotes
from memrt.runtime.memory.sampling import Sampling
from memrt.runtime.memory.store import JpegFrame, KeyframeStore
from memrt.runtime.policy.frame_features import FrameFeatures, Picture, ShownImage, content_id
from memrt.runtime.policy.views import stack_views
from memrt.runtime.policy.vlm import Vlm
from memrt.runtime.types import BorrowedFrame, ImageArray, Observation

KeptFrame: TypeAlias = JpegFrame | FrameFeatures


@dataclass(frozen=True, slots=True, eq=False)
class _Recent:
    """A moment that is recent: `image` is None where the pixels stay in the camera's ring and are borrowed anew."""

    content: int
    image: ImageArray | None


class KeyframeImages:
    """The frames of one episode. One thread owns it; between `look` and `release` frames of the cameras are pinned."""

    def __init__(self, config: KeyframesConfig, size: tuple[int, int], session: Vlm) -> None:
        """`size` (height, width) is that of the images shown to the VLM of `session`."""
        self._config, self._size, self._session = config, size, session
        self._sampling = Sampling.of(config)
        self._recent: dict[int, _Recent] = {}  # by time: a cancelled first call begins no episode
        self._shown: dict[int, ShownImage] = {}
        self._pinned: list[BorrowedFrame] = []
        self.store: KeyframeStore[KeptFrame] = KeyframeStore(config.max_bytes)

    def clear(self) -> None:
        """A new episode: nothing of the last one is shown."""
        self.release()
        self._recent.clear()
        self.store.clear()

    def look(self, observation: Observation, start_ns: int) -> tuple[int, ...]:
        """Make the recent frames of a call at `observation` ready to be shown; their ticks, oldest first.

        Ticks whose frames are gone are left out; the newest falls back on the observation's own frames. Raises
        MemrtError when a view is missing there.
        """
        wanted = self._sampling.recent_ticks(start_ns, observation.t_ns)
        return self._look(observation, start_ns, wanted, newest=wanted[-1])

    def look_ahead(
        self, observation: Observation, start_ns: int, moment_ns: int
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The same for a coming call at `moment_ns`: the ticks that can be shown, and those that are still to come."""
        wanted = self._sampling.recent_ticks(start_ns, moment_ns)
        to_come = [tick for tick in wanted[:-1] if self._sampling.t_ns(start_ns, tick) > observation.t_ns]
        here = self._look(observation, start_ns, wanted[: -1 - len(to_come)], newest=None)
        return here, (*to_come, wanted[-1])

    def _look(
        self, observation: Observation, start_ns: int, wanted: Sequence[int], *, newest: int | None
    ) -> tuple[int, ...]:
        times = {tick: self._sampling.t_ns(start_ns, tick) for tick in wanted}
        self._recent = {t_ns: seen for t_ns, seen in self._recent.items() if t_ns in times.values()}
        for tick, t_ns in times.items():
            shown = self._show(observation, t_ns, newest=tick == newest)
            if shown is not None:
                self._shown[tick] = shown
        return tuple(tick for tick in wanted if tick in self._shown)

    def picture(self, tick: int) -> Picture:
        """What the VLM is shown of a recent frame or of a keyframe."""
        if tick in self._shown:
            return self._shown[tick]
        kept = self.store[tick]
        return ShownImage(kept.content, kept.image) if isinstance(kept, JpegFrame) else kept

    def follow(self, votes: KeyframeVotes) -> KeyframeVotes:
        """Keep what the votes name now; returns those that fit (`KeyframeStore.follow`)."""
        return self.store.follow(votes, self._capture)

    def release(self) -> None:
        """Let the cameras' frames go."""
        self._shown.clear()
        self._unpin(0)

    def _show(self, observation: Observation, t_ns: int, *, newest: bool) -> ShownImage | None:
        seen = self._recent.get(t_ns)
        if seen is not None and seen.image is not None:
            return _shown(seen.content, seen.image)
        pinned_before = len(self._pinned)
        views = self._views(observation, t_ns, newest=newest)
        if views is None:
            self._unpin(pinned_before)
            return None
        image = stack_views(views, self._size)
        in_place = image is views[0]
        if not in_place:
            self._unpin(pinned_before)
        if seen is None:
            seen = self._recent[t_ns] = _Recent(content_id(image), None if in_place else image)
        return _shown(seen.content, image)

    def _views(self, observation: Observation, t_ns: int, *, newest: bool) -> list[ImageArray] | None:
        """One image per view, pinned until `release`; None where a frame is gone."""
        views: list[ImageArray] = []
        for camera in self._config.views:
            borrowed = observation.history.at(camera, t_ns) if observation.history is not None else None
            if borrowed is not None:
                self._pinned.append(borrowed)
                views.append(borrowed.image)
            elif newest:
                views.append(current_image(observation, camera))
            else:
                return None
        return views

    def _unpin(self, first: int) -> None:
        for frame in self._pinned[first:]:
            frame.release()
        del self._pinned[first:]

    def _capture(self, tick: int) -> KeptFrame:
        shown = self._shown[tick]
        if self._config.keep == "vision_tokens":
            return self._session.features(shown)
        return JpegFrame.compress(shown.load(), shown.content, self._config.jpeg_quality)


def current_image(observation: Observation, camera: str) -> ImageArray:
    """The newest frame of a camera. Raises MemrtError when it has given none."""
    frame = observation.frames.get(camera)
    if frame is None:
        raise MemrtError(
            "high-level observation",
            expected=f"a frame of camera `{camera}`",
            found=", ".join(sorted(observation.frames)) or "no frames",
            fix="attach the camera, or name another in the policy's YAML",
        )
    return frame.image


def _shown(content: int, image: ImageArray) -> ShownImage:
    return ShownImage(content, lambda: image)
