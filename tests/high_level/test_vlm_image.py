"""Frames reach an engine as transformers' image processors would hand them over, or are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.vlm_config import ImageSize, Resize
from memrt.runtime.policy.vlm_image import engine_size, fit, resized

QWEN3 = Resize(factor=32, min_pixels=65_536, max_pixels=16_777_216)
QWEN2_5 = Resize(factor=28, min_pixels=3_136, max_pixels=12_845_056)
SIDE = st.integers(1, 5000)


@given(SIDE, SIDE, st.sampled_from([QWEN3, QWEN2_5, Resize(factor=28, min_pixels=50_000, max_pixels=100_000)]))
def test_sizes_are_those_of_smart_resize(height: int, width: int, resize: Resize) -> None:
    if max(height, width) / min(height, width) > 200:
        with pytest.raises(MemrtError, match="camera image"):
            resized(height, width, resize)
        return
    expected = smart_resize(height, width, resize.factor, resize.min_pixels, resize.max_pixels)
    assert resized(height, width, resize) == expected


@pytest.mark.parametrize(("height", "width"), [(320, 360), (480, 640), (100, 90), (257, 256)])
@pytest.mark.parametrize("resize", [QWEN3, QWEN2_5])
def test_pixels_are_those_of_the_image_processor(height: int, width: int, resize: Resize) -> None:
    """Without normalisation its patches are 8-bit pixels: every single one is equal."""
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    patch = resize.factor // 2
    processor = Qwen2VLImageProcessorPil(
        patch_size=patch,
        do_rescale=False,
        do_normalize=False,
        size={"shortest_edge": resize.min_pixels, "longest_edge": resize.max_pixels},
    )
    features = processor(images=[image], return_tensors="np")
    _, rows, columns = features["image_grid_thw"][0] // (1, 2, 2)
    patches = features["pixel_values"].reshape(rows, columns, 2, 2, 3, 2, patch, patch)[:, :, :, :, :, 0]
    expected = patches.transpose(0, 2, 5, 1, 3, 6, 4).reshape(rows * resize.factor, columns * resize.factor, 3)
    target = resized(height, width, resize)
    ours = fit(image, ImageSize(height=target[0], width=target[1], grid=(int(rows), int(columns))))
    assert ours.dtype == np.uint8
    np.testing.assert_array_equal(ours, expected)


SIZES = (ImageSize(height=256, width=256, grid=(8, 8)), ImageSize(height=320, width=352, grid=(10, 11)))


def test_the_engine_of_the_resized_frame_is_chosen() -> None:
    assert engine_size(256, 256, SIZES, QWEN3) == SIZES[0]
    assert engine_size(250, 260, SIZES, QWEN3) == SIZES[0]
    assert engine_size(320, 360, SIZES, QWEN3) == SIZES[1]


def test_a_frame_of_an_engines_size_is_never_resized() -> None:
    small = (ImageSize(height=64, width=64, grid=(2, 2)),)
    assert resized(64, 64, QWEN3) == (256, 256)  # what the processor would make of it
    assert engine_size(64, 64, small, QWEN3) == small[0]


def test_sizes_without_an_engine_are_refused() -> None:
    with pytest.raises(MemrtError, match=r"256x256 pixels or 320x352 pixels, found 480x640\. Fix"):
        engine_size(480, 640, SIZES, Resize(factor=16, min_pixels=1, max_pixels=10**7))
    with pytest.raises(MemrtError, match=r"found 320x360\. Fix"):
        engine_size(320, 360, SIZES, None)
