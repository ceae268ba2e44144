"""The frames that a keyframe memory's votes name: compressed, bounded in frames and in bytes for any episode."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import simplejpeg

from memrt.runtime.memory.keyframes import KeyframeVotes
from memrt.runtime.types import ImageArray


class Keepable(Protocol):
    """A frame in the form in which it is kept."""

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        ...


@dataclass(frozen=True, slots=True)
class JpegFrame:
    """A frame as JPEG. `content` identifies the pixels it was made from, so that their vision features are found."""

    content: int
    data: bytes

    @classmethod
    def compress(cls, image: ImageArray, content: int, quality: int) -> JpegFrame:
        """`image` uint8 [height, width, 3], RGB; `quality` 1..100. Colour keeps its resolution: cubes are small."""
        return cls(content, simplejpeg.encode_jpeg(image, quality=quality, colorspace="RGB", colorsubsampling="444"))

    @property
    def nbytes(self) -> int:
        """Size of the JPEG."""
        return len(self.data)

    def image(self) -> ImageArray:
        """The pixels, uint8 [height, width, 3], RGB, up to the compression's error."""
        pixels: ImageArray = simplejpeg.decode_jpeg(self.data, colorspace="RGB")
        return pixels


FrameT = TypeVar("FrameT", bound=Keepable)


class KeyframeStore(Generic[FrameT]):
    """One frame for each tick that the votes of an episode hold, and no other.

    The number of frames is bounded by the votes (`KeyframeVotes.held`), their size by `max_bytes`. When bytes run out,
    events lose detail first: frames of the largest event are given up one by one, as for `max_open_frames`. When every
    event is down to one frame, the oldest event is forgotten. The votes shrink with the store, so that every frame that
    they name is there.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._frames: dict[int, FrameT] = {}
        self._nbytes = 0

    @property
    def nbytes(self) -> int:
        """Memory of the frames."""
        return self._nbytes

    def __len__(self) -> int:
        return len(self._frames)

    def __contains__(self, tick: object) -> bool:
        return tick in self._frames

    def __getitem__(self, tick: int) -> FrameT:
        return self._frames[tick]

    def follow(self, votes: KeyframeVotes, capture: Callable[[int], FrameT]) -> KeyframeVotes:
        """Hold what `votes` name after a reply: `capture` gives the frame of a tick that is not here yet.

        Returns the votes that are left within `max_bytes`; `thinned` has grown by the frames given up.
        """
        self._drop_all_but(votes.held())
        for tick in votes.held():
            if tick not in self._frames:
                self._frames[tick] = frame = capture(tick)
                self._nbytes += frame.nbytes
        while self._nbytes > self._max_bytes:
            votes = votes.with_one_frame_fewer()
            self._drop_all_but(votes.held())
        return votes

    def clear(self) -> None:
        """A new episode."""
        self._drop_all_but(())

    def _drop_all_but(self, ticks: Iterable[int]) -> None:
        for tick in self._frames.keys() - set(ticks):
            self._nbytes -= self._frames.pop(tick).nbytes
