"""msgpack messages that hold numpy arrays: the three dialects in use are read, openpi's and vla-eval's are written.

An array is a map. openpi: `__ndarray__`, `data`, `dtype`, `shape` (binary keys; vla-eval: text keys). msgpack-numpy:
`nd`, `type`, `shape`, `data`. GR00T: `__ndarray_class__`, `as_npy`. Whatever the dialect, the dtype comes from a list,
the shape must account for every byte, and nothing is ever unpickled: a message gives plain values or is refused.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from memrt.runtime.errors import MemrtError

MAX_CONTAINERS = 16_384  # maps and lists in one message; an observation has about ten, a video of 600 frames 1800
MAX_ITEMS = 16_384  # of one list or map
MAX_TEXT_BYTES = 65_536
MAX_DIMENSIONS = 6
MAX_SIZE = 1 << 31  # of one dimension
MAX_NPY_HEADER = 256  # bytes; numpy writes 128 for every array it can be here

_NAMES = ["bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))]
_NAMES += [f"float{bits}" for bits in (16, 32, 64)]
DTYPES: Mapping[str, np.dtype[Any]] = {
    spelling: np.dtype(name) for name in _NAMES for spelling in (name, np.dtype(name).newbyteorder("<").str)
}


def unpack(data: bytes) -> dict[str, Any]:
    """The map that `data` holds: text keys, plain values, arrays (read-only views of the message).

    Encoded images (vla-eval) stay as they are, see `memrt.robot_io.serve.images`. Raises MemrtError for everything
    else: not msgpack, not a map, objects, extension types, a dtype that is not listed, a shape that does not fit.
    """
    containers = 0

    def count() -> None:
        nonlocal containers
        containers += 1
        if containers > MAX_CONTAINERS:
            raise ValueError(f"more than {MAX_CONTAINERS} maps and lists")

    def on_list(items: list[Any]) -> list[Any]:
        count()
        return items

    def on_map(pairs: Sequence[tuple[Any, Any]]) -> Any:
        count()
        return _array_or_map(pairs)

    try:
        message = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            list_hook=on_list,
            object_pairs_hook=on_map,
            max_array_len=MAX_ITEMS,
            max_map_len=MAX_ITEMS,
            max_str_len=MAX_TEXT_BYTES,
            max_ext_len=0,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise refused(f"{type(error).__name__}: {error}"[:300]) from error
    if not isinstance(message, dict):
        raise refused(f"a {type(message).__name__}")
    return message


def pack(message: Mapping[str, Any], *, text_keys: bool = False) -> bytes:
    """The bytes of `message`; arrays in openpi's dialect, or in vla-eval's with `text_keys`."""

    def encode(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            raise TypeError(f"cannot send a {type(value).__name__}")
        values = value.astype(value.dtype.newbyteorder("<"), copy=False)
        array = {"__ndarray__": True, "data": values.tobytes(), "dtype": values.dtype.str, "shape": values.shape}
        return array if text_keys else {key.encode(): item for key, item in array.items()}

    packed: bytes = msgpack.packb(message, default=encode)
    return packed


def refused(found: object) -> MemrtError:
    """The refusal of a message that cannot be read."""
    return MemrtError(
        "message",
        expected="one msgpack map of texts, numbers and numpy arrays",
        found=found,
        fix="send what openpi-client or vla-eval sends; objects and pickles are never read",
    )


def _array_or_map(pairs: Sequence[tuple[Any, Any]]) -> Any:
    values: dict[str, Any] = {}
    for key, value in pairs:
        name = key.decode() if isinstance(key, bytes) else key
        if name in values:
            raise ValueError(f"the key {name[:64]!r} is given twice")
        values[name] = value
    if "__ndarray__" in values:
        return _array(values, "dtype")
    if "__npgeneric__" in values:
        return _scalar(values, "dtype")
    if "__ndarray_class__" in values:
        return _npy(values.get("as_npy"))
    if "nd" in values and "type" in values:
        if values.get("kind") not in (None, "", b""):
            raise ValueError(f"an array of kind {values['kind']!r}")
        return _array(values, "type") if values["nd"] is True else _scalar(values, "type")
    if "complex" in values:
        raise ValueError("a complex number")
    return values


def _dtype(spelling: Any) -> np.dtype[Any]:
    if isinstance(spelling, bytes):
        spelling = spelling.decode()
    if not isinstance(spelling, str) or spelling not in DTYPES:
        raise ValueError(f"dtype {str(spelling)[:64]!r}; known are {', '.join(_NAMES)}")
    return DTYPES[spelling]


def _array(values: Mapping[str, Any], dtype_key: str) -> NDArray[Any]:
    return _view(values.get("data"), _dtype(values.get(dtype_key)), values.get("shape"))


def _view(data: Any, dtype: np.dtype[Any], shape: Any) -> NDArray[Any]:
    if not isinstance(data, bytes):
        raise ValueError(f"array data that is a {type(data).__name__}")
    if not isinstance(shape, list | tuple) or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"a shape that is no list of at most {MAX_DIMENSIONS} numbers")
    if not all(type(size) is int and 0 <= size <= MAX_SIZE for size in shape):
        raise ValueError("a shape of something else than sizes")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"shape {list(shape)} of {dtype} with {len(data)} bytes of data")
    return np.frombuffer(data, dtype).reshape(shape)


def _scalar(values: Mapping[str, Any], dtype_key: str) -> Any:
    dtype, data = _dtype(values.get(dtype_key)), values.get("data")
    if isinstance(data, bytes):  # msgpack-numpy sends the scalar's bytes, openpi its value
        return _view(data, dtype, ()).item()
    if not isinstance(data, bool | int | float):
        raise ValueError(f"a scalar that is a {type(data).__name__}")
    return data


def _npy(data: Any) -> NDArray[Any]:
    """numpy's own file format, version 1.0. Its reader would allocate what the header claims before it has the data."""
    if not isinstance(data, bytes):
        raise ValueError(f"an .npy array that is a {type(data).__name__}")
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f".npy version {version}")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=MAX_NPY_HEADER)
    if fortran_order:
        raise ValueError("an .npy array in Fortran order")
    return _view(data[stream.tell() :], _dtype(dtype.str), shape)
