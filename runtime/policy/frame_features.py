"""Camera frames to visual tokens, each frame once: a high-level call shows most of its frames again.

The cache forgets what was used longest ago, and is bounded in frames and in bytes. Features come back bit for bit.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.vlm_config import ImageSize, VlmConfig
from memrt.runtime.policy.vlm_image import engine_size, fit
from memrt.runtime.types import Engine, ImageArray

MAX_FRAMES = 32  # MemER's 8 keyframes and 8 recent frames twice over: keyframes that come back are still there
# A 256x256 frame of Qwen3-VL-4B is 64 tokens of width 2560, fp32, once for the input and three times for deepstack:
# 2.6 MB. One call's 16 frames of 640x480 pixels, 300 tokens each, are 197 MB and must fit.
MAX_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, eq=False)
class FrameFeatures:
    """`tokens` fp32 [n, width] and `deepstack` fp32 [deepstack layers, n, width] of one frame, n its visual tokens.

    `content` identifies the frame's pixels and is never 0.
    """

    content: int
    size: ImageSize
    tokens: NDArray[np.float32]
    deepstack: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """Memory of the two arrays."""
        return self.tokens.nbytes + self.deepstack.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class ShownImage:
    """A frame that was seen before: `content` is the `content_id` of its pixels as they were first seen.

    `load` gives the pixels, uint8 [height, width, 3], and is called only when the features of `content` are not cached
    any more. Pixels that went through JPEG in the meantime may differ from the first ones: they stand for the same
    frame.
    """

    content: int
    load: Callable[[], ImageArray]


Picture: TypeAlias = ImageArray | ShownImage | FrameFeatures  # what a prompt can show: pixels uint8 [height, width, 3]


def content_id(image: ImageArray) -> int:
    """Identity of the pixels of `image` uint8 [height, width, 3], never 0.

    The shape counts too: the same bytes may be read as 256x512 or 512x256 pixels.
    """
    digest = hashlib.blake2b(np.asarray(image.shape, np.int64).tobytes(), digest_size=7)
    digest.update(np.ascontiguousarray(image).data)
    return int.from_bytes(digest.digest(), "little") + 1


class FrameEncoder:
    """The vision engines of a VLM, one per image size, and the features that they computed last."""

    def __init__(
        self,
        config: VlmConfig,
        engines: Mapping[str, Engine],
        *,
        max_frames: int = MAX_FRAMES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """`engines` by `VlmConfig.vision_graph`. Raises MemrtError when one is missing."""
        wanted = {config.vision_graph(size) for size in config.image_sizes}
        if wanted - set(engines):
            raise MemrtError(
                "vision engines",
                expected=", ".join(sorted(wanted)),
                found=", ".join(sorted(engines)) or "none",
                fix="export the policy again: its files do not belong together",
            )
        self._config, self._engines = config, engines
        self._max_frames, self._max_bytes = max_frames, max_bytes
        self._kept: OrderedDict[int, FrameFeatures] = OrderedDict()  # used longest ago first
        self._nbytes = 0

    @property
    def frames(self) -> int:
        """Frames in the cache."""
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Memory of the cached features."""
        return self._nbytes

    def features(self, picture: Picture) -> FrameFeatures:
        """Features of one frame, computed if they are not at hand. Raises MemrtError for an image no engine takes.

        FrameFeatures are returned as they are: whoever hands them in keeps them.
        """
        if isinstance(picture, FrameFeatures):
            return picture
        shown = picture if isinstance(picture, ShownImage) else _shown(picture)
        found = self._kept.get(shown.content)
        if found is None:
            found = self._compute(shown.content, _checked(shown.load()))
            self._keep(found)
        else:
            self._kept.move_to_end(shown.content)
        return found

    def forget(self) -> None:
        """Drop all cached features."""
        self._kept.clear()
        self._nbytes = 0

    def close(self) -> None:
        """Release the engines."""
        for engine in self._engines.values():
            engine.close()

    def _compute(self, content: int, image: ImageArray) -> FrameFeatures:
        size = engine_size(image.shape[0], image.shape[1], self._config.image_sizes, self._config.resize)
        outputs = self._engines[self._config.vision_graph(size)].run({"image": fit(image, size)})
        nothing = np.zeros((0, *outputs["tokens"].shape), np.float32)  # not every family has deepstack
        return FrameFeatures(content, size, outputs["tokens"], outputs.get("deepstack", nothing))

    def _keep(self, features: FrameFeatures) -> None:
        self._kept[features.content] = features
        self._nbytes += features.nbytes
        while self._kept and (len(self._kept) > self._max_frames or self._nbytes > self._max_bytes):
            _, oldest = self._kept.popitem(last=False)
            self._nbytes -= oldest.nbytes


def _shown(image: ImageArray) -> ShownImage:
    return ShownImage(content_id(_checked(image)), lambda: image)


def _checked(image: ImageArray) -> ImageArray:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise MemrtError(
            "camera image",
            expected="uint8 [height, width, 3]",
            found=f"{image.dtype} {list(image.shape)}",
            fix="convert the camera's frames to 8-bit RGB",
        )
    return image
