"""Several cameras as one image: their views stacked from top to bottom (MemER: wrist above exterior)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memrt.runtime._core import resize_bicubic
from memrt.runtime.types import ImageArray


def stack_views(views: Sequence[ImageArray], size: tuple[int, int]) -> ImageArray:
    """`views` uint8 [height, width, 3] as one image of `size` (height, width), each given an equal share of the height.

    A single view that has the size already is returned as it is, not copied. Scaling is bicubic over all source pixels
    of a target pixel, as Qwen's image processors do it.
    """
    if len(views) == 1 and views[0].shape[:2] == size:
        return views[0]
    height = size[0] // len(views)
    stacked = np.empty((*size, 3), np.uint8)
    for number, view in enumerate(views):
        share = stacked[number * height : (number + 1) * height]
        if view.shape == share.shape:
            share[:] = view
        else:
            resize_bicubic(np.ascontiguousarray(view), share)
    return stacked
