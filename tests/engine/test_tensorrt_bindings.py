"""Types and sizes at the boundary to the device, bfloat16 rounding, and the strided copy of K/V rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.runtime.engine.tensorrt_bindings import (
    bfloat16_bits,
    floats_of_bfloat16,
    from_device,
    host_dtype,
    row_copy,
    tensor_bytes,
    to_device,
)
from memrt.runtime.errors import MemrtError


@given(st.lists(st.floats(width=32), min_size=1, max_size=50))
def test_bfloat16_rounds_as_the_hardware_does(values: list[float]) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.asarray(values, np.float32)
    with np.errstate(over="ignore"):
        expected = array.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(floats_of_bfloat16(bfloat16_bits(array)), expected)


def test_what_goes_to_the_device_comes_back() -> None:
    half = np.arange(12, dtype=np.float16).reshape(3, 4).T
    assert to_device(half, "HALF").flags.c_contiguous
    np.testing.assert_array_equal(from_device(to_device(half, "HALF"), "HALF"), half)
    single = np.asarray([0.5, -3.0, 1e30], np.float32)
    np.testing.assert_allclose(from_device(to_device(single, "BF16"), "BF16"), single, rtol=2**-8)


@pytest.mark.parametrize(("dtype", "size"), [("FLOAT", 60), ("BF16", 30), ("INT4", 8), ("FP8", 15), ("INT64", 120)])
def test_bytes_on_the_device(dtype: str, size: int) -> None:
    assert tensor_bytes(dtype, (3, 5)) == size


def test_a_type_numpy_cannot_hold_is_refused() -> None:
    assert host_dtype("decoder", "logits", "BF16") == "float32"
    with pytest.raises(MemrtError, match=r"tensor 'logits' has a type numpy cannot hold.*found FP8"):
        host_dtype("decoder", "logits", "FP8")


@given(st.integers(0, 5), st.integers(1, 4), st.integers(1, 3), st.integers(1, 2))
def test_a_row_copy_is_what_slicing_does(start: int, rows: int, layers: int, heads: int) -> None:
    capacity, width = 9, 4
    cache = np.zeros((layers, heads, capacity, width), np.float32)
    new = np.random.default_rng(start).normal(size=(layers, heads, rows, width)).astype(np.float32)
    expected = cache.copy()
    expected[:, :, start : start + rows] = new
    copy = row_copy("decoder", cache.shape, new.shape, "FLOAT", start)
    target, source = cache.view(np.uint8).ravel(), new.view(np.uint8).ravel()
    for row in range(copy.rows):
        at, begin = copy.offset + row * copy.target_pitch, row * copy.source_pitch
        target[at : at + copy.width] = source[begin : begin + copy.width]
    np.testing.assert_array_equal(cache, expected)


@pytest.mark.parametrize(
    ("source", "start"), [((2, 3, 4), 7), ((2, 3, 5), 0), ((3, 3, 4), 0), ((3, 4), 0), ((2, 1, 4), -1)]
)
def test_rows_that_do_not_fit_are_refused(source: tuple[int, ...], start: int) -> None:
    with pytest.raises(MemrtError, match="rows do not fit the cache"):
        row_copy("decoder", (2, 9, 4), source, "HALF", start)
