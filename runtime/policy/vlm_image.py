"""Camera frames to the image sizes of a VLM's engines, with the arithmetic of Qwen's image processors.

Both families round a frame's sides to whole blocks of patches and scale it when it has too few or too many pixels
(transformers' `smart_resize`), with Pillow's bicubic filter, which averages over all source pixels of a target pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from memrt.runtime._core import resize_bicubic
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.vlm_config import ImageSize, Resize
from memrt.runtime.types import ImageArray

MAX_ASPECT = 200  # of smart_resize: sides further apart are refused


def resized(height: int, width: int, resize: Resize) -> tuple[int, int]:
    """(height, width) that the image processor gives a frame of this size. Raises MemrtError for a sliver."""
    if min(height, width) <= 0 or max(height, width) > MAX_ASPECT * min(height, width):
        raise MemrtError(
            "camera image",
            expected=f"sides that differ by at most {MAX_ASPECT} times",
            found=f"{height}x{width} pixels",
            fix="crop the camera's frames",
        )
    factor = resize.factor
    sides = [round(side / factor) * factor for side in (height, width)]
    if sides[0] * sides[1] > resize.max_pixels:
        scale = math.sqrt(height * width / resize.max_pixels)
        sides = [max(factor, math.floor(side / scale / factor) * factor) for side in (height, width)]
    elif sides[0] * sides[1] < resize.min_pixels:
        scale = math.sqrt(resize.min_pixels / (height * width))
        sides = [math.ceil(side * scale / factor) * factor for side in (height, width)]
    return sides[0], sides[1]


def engine_size(height: int, width: int, sizes: Sequence[ImageSize], resize: Resize | None) -> ImageSize:
    """The engine size for a frame of (height, width) pixels.

    A frame that has an engine's size keeps it; another one is resized as the image processor would. Raises MemrtError
    when no engine takes the result.
    """
    wanted = (height, width)
    by_pixels = {size.pixels: size for size in sizes}
    if wanted not in by_pixels and resize is not None:
        wanted = resized(height, width, resize)
    if wanted not in by_pixels:
        became = "" if wanted == (height, width) else f", resized to {wanted[0]}x{wanted[1]}"
        raise MemrtError(
            "camera image",
            expected=" or ".join(f"{rows}x{columns} pixels" for rows, columns in by_pixels),
            found=f"{height}x{width}{became}",
            fix="set the camera to a size the policy was exported for, or export it for this size too",
        )
    return by_pixels[wanted]


def fit(image: ImageArray, size: ImageSize) -> ImageArray:
    """`image` uint8 [height, width, 3] resized to `size`, contiguous."""
    image = np.ascontiguousarray(image)
    if image.shape[:2] == size.pixels:
        return image
    scaled = np.empty((size.height, size.width, 3), np.uint8)
    resize_bicubic(image, scaled)
    return scaled
