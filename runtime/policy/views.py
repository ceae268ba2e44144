"""Several cameras as one image: their views stacked from top to bottom (MemER: wrist above exterior)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from memrt.runtime.types import ImageArray


def stack_views(views: Sequence[ImageArray], size: tuple[int, int]) -> ImageArray:
    """`views` uint8 [height, width, 3] as one image of `size` (height, width), each given an equal share of the height.

    A single view that has the size already is returned as it is, not copied. Scaling is Pillow's bicubic, which
    averages over all source pixels of a target pixel, as Qwen's image processors do.
    """
    height, width = size[0] // len(views), size[1]
    scaled = [_scaled(view, height, width) for view in views]
    return scaled[0] if len(scaled) == 1 else np.concatenate(scaled)


def _scaled(view: ImageArray, height: int, width: int) -> ImageArray:
    if view.shape[:2] == (height, width):
        return view
    return np.asarray(Image.fromarray(view).resize((width, height), resample=Image.Resampling.BICUBIC))
