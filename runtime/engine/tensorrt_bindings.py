"""What a TensorRT tensor is to numpy and to device memory: types, sizes, and the copy that adds rows to a K/V cache.

Pure functions. numpy has no bfloat16: such tensors are given and returned as float32 and rounded here, to nearest even,
as the hardware does. Types of less than a byte never cross the boundary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrt.runtime.errors import MemrtError

Array = NDArray[Any]

# TensorRT's data types (their Python names): what numpy holds them in, and their size on the device in bits.
HOST_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "float32",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
BITS = {
    "FLOAT": 32,
    "HALF": 16,
    "BF16": 16,
    "INT8": 8,
    "UINT8": 8,
    "INT32": 32,
    "INT64": 64,
    "BOOL": 8,
    "FP8": 8,
    "INT4": 4,
    "FP4": 4,
}
_ROUNDING, _QUIET_NAN, _EXPONENT = 0x7FFF, 0x7FC0, 0x7F800000


@dataclass(frozen=True, slots=True)
class RowCopy:
    """A strided device copy: `rows` runs of `width` bytes, from pitch to pitch, `offset` bytes into the target."""

    offset: int
    width: int
    rows: int
    target_pitch: int
    source_pitch: int


def host_dtype(engine: str, name: str, dtype: str) -> str:
    """numpy's name for the tensor at the boundary. Raises `MemrtError` for a type that numpy cannot hold."""
    if dtype not in HOST_DTYPES:
        raise MemrtError(
            f"engine {engine}, tensor '{name}' has a type numpy cannot hold",
            expected=f"one of {', '.join(sorted(HOST_DTYPES))}",
            found=dtype,
            fix="export the graph with float inputs and outputs; low precisions belong inside",
        )
    return HOST_DTYPES[dtype]


def tensor_bytes(dtype: str, shape: Sequence[int]) -> int:
    """Bytes of a dense tensor on the device."""
    return math.ceil(math.prod(shape) * BITS[dtype] / 8)


def to_device(array: Array, dtype: str) -> Array:
    """The bytes that go to the device: `array` itself, contiguous, or its bfloat16 bits as uint16."""
    contiguous = np.ascontiguousarray(array)
    return bfloat16_bits(contiguous) if dtype == "BF16" else contiguous


def staging_dtype(dtype: str) -> str:
    """numpy dtype of the raw bytes that come from the device."""
    return "uint16" if dtype == "BF16" else HOST_DTYPES[dtype]


def from_device(raw: Array, dtype: str) -> Array:
    """The inverse of `to_device`."""
    return floats_of_bfloat16(raw) if dtype == "BF16" else raw


def bfloat16_bits(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """float32 rounded to bfloat16, to nearest and ties to even; NaN stays NaN, too large values become infinite."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits.astype(np.uint64) + _ROUNDING + ((bits >> 16) & 1)) >> 16
    result = rounded.astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(_QUIET_NAN), result).astype(np.uint16)


def floats_of_bfloat16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """bfloat16 bit patterns as float32, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def row_copy(engine: str, target: Sequence[int], source: Sequence[int], dtype: str, start: int) -> RowCopy:
    """How new K/V rows [..., n, width] enter a cache [..., capacity, width] at row `start`.

    Raises `MemrtError` when other dimensions differ or the rows do not fit.
    """
    fits = (
        len(target) == len(source) >= 2
        and tuple(target[:-2]) == tuple(source[:-2])
        and target[-1] == source[-1]
        and 0 <= start <= target[-2] - source[-2]
    )
    if not fits:
        raise MemrtError(
            f"engine {engine}, rows do not fit the cache",
            expected=f"rows of {list(target)} from {start} on",
            found=list(source),
            fix="start a shorter request, or export with more capacity",
        )
    row = target[-1] * BITS[dtype] // 8
    return RowCopy(
        offset=start * row,
        width=source[-2] * row,
        rows=math.prod(target[:-2]),
        target_pitch=target[-2] * row,
        source_pitch=source[-2] * row,
    )
