"""Images as vla-eval sends them: a map with `__image__`, `format` (png, jpeg or raw), `data` and `shape`.

They are decoded only when a policy looks at them, and only after the file's own header agrees with the declared shape.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from memrt.runtime.errors import MemrtError
from memrt.runtime.types import ImageArray

MAX_SIDE = 4096  # pixels; a camera's frame has up to 2208
_MARK = "__image__"
_FORMATS = {"png": "PNG", "jpeg": "JPEG"}


def is_encoded(value: object) -> bool:
    """Whether `value` is an image that was sent as a file's bytes."""
    return isinstance(value, Mapping) and _MARK in value


def decode_image(value: Mapping[str, Any]) -> ImageArray:
    """uint8 [height, width, 3], RGB. Raises MemrtError for a file that is not the image it is declared to be."""
    shape, data, kind = value.get("shape"), value.get("data"), value.get("format")
    sizes = shape if isinstance(shape, list) and all(type(size) is int for size in shape) else []
    if len(sizes) != 3 or sizes[2] != 3 or not all(1 <= size <= MAX_SIDE for size in sizes[:2]):
        raise _refused(f"the shape {str(shape)[:64]}")
    if not isinstance(data, bytes):
        raise _refused(f"data that is a {type(data).__name__}")
    if kind == "raw":
        if value.get("dtype") != "|u1" or math.prod(sizes) != len(data):
            raise _refused(f"{len(data)} bytes of {str(value.get('dtype'))[:16]} for the shape {sizes}")
        return np.frombuffer(data, np.uint8).reshape(sizes)
    if not isinstance(kind, str) or kind not in _FORMATS:
        raise _refused(f"the format {str(kind)[:16]!r}")
    try:
        with Image.open(io.BytesIO(data), formats=[_FORMATS[kind]]) as image:
            if (image.height, image.width) != tuple(sizes[:2]) or image.mode != "RGB":
                raise _refused(f"a {image.mode} file of {image.height}x{image.width} for the shape {sizes}")
            return np.asarray(image)
    except MemrtError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever their file formats made them
        raise _refused(f"{type(error).__name__}: {error}"[:200]) from error


def _refused(found: object) -> MemrtError:
    return MemrtError(
        "image",
        expected=f"a png, jpeg or raw RGB image of at most {MAX_SIDE} pixels a side, as its shape says",
        found=found,
        fix="send uint8 RGB images",
    )
