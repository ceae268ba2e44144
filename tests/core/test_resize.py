"""The resize gives Pillow's bytes: any size to any size, both filters, vector code and portable code."""

from collections.abc import Callable

import numpy as np
import PIL
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from memrt.runtime._core import resize_bicubic, resize_bilinear

# Pillow 13 begins with the vertical pass where the height shrinks much more than the width; so do we.
PILLOW_MAJOR = int(PIL.__version__.split(".")[0])
FILTERS = [(resize_bilinear, Image.Resampling.BILINEAR), (resize_bicubic, Image.Resampling.BICUBIC)]


def sizes(most: int) -> st.SearchStrategy[tuple[int, int]]:
    side = st.integers(1, most) | st.integers(1, 9)  # slivers and single pixels are where borders meet
    return st.tuples(side, side)


def picture(height: int, width: int, seed: int, kind: str) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "extremes":  # bicubic overshoots most beside black and white
        return rng.choice(np.array([0, 255], np.uint8), (height, width, 3))
    if kind == "white":
        return np.full((height, width, 3), 255, np.uint8)
    return rng.integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("resize", "pillows"), FILTERS)
@given(
    source=sizes(150),
    target=sizes(90),
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["noise", "extremes", "white"]),
    simd=st.booleans(),
)
@settings(max_examples=250, deadline=None)
def test_bytes_are_pillows(resize: Callable[..., None], pillows: Image.Resampling, source, target, seed, kind, simd):
    assume(PILLOW_MAJOR >= 13 or source[0] - target[0] <= max(0, 2 * (source[1] - target[1])))
    image = picture(*source, seed, kind)
    expected = np.asarray(Image.fromarray(image).resize(target[::-1], pillows))
    out = np.empty((*target, 3), np.uint8)
    resize(image, out, simd=simd)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(("resize", "pillows"), FILTERS)
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((480, 640), (168, 224)),  # a camera's picture for π0.5
        ((720, 1280), (126, 224)),
        ((480, 640), (448, 616)),  # and for a VLM
        ((256, 256), (224, 224)),
        ((180, 320), (1080, 1920)),
        ((480, 640), (480, 224)),  # one direction only
        ((480, 640), (168, 640)),
        ((3, 4000), (1, 1)),  # thousands of taps
    ],
)
def test_sizes_in_use(resize, pillows, source, target):
    image = picture(*source, 7, "noise")
    expected = np.asarray(Image.fromarray(image).resize(target[::-1], pillows))
    for simd in (True, False):
        out = np.empty((*target, 3), np.uint8)
        resize(image, out, simd=simd)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("simd", [True, False])
def test_a_window_is_read_and_written_and_nothing_around_it(simd):
    whole = picture(50, 70, 3, "noise")
    window = whole[5:45, 10:60]
    canvas = np.full((40, 60, 3), 9, np.uint8)
    resize_bilinear(window, canvas[3:24, 4:31], simd=simd)
    expected = np.full((40, 60, 3), 9, np.uint8)
    expected[3:24, 4:31] = np.asarray(
        Image.fromarray(np.ascontiguousarray(window)).resize((27, 21), Image.Resampling.BILINEAR)
    )
    np.testing.assert_array_equal(canvas, expected)


@pytest.mark.parametrize(
    ("image", "out"),
    [
        (np.zeros((8, 8, 4), np.uint8), np.zeros((4, 4, 3), np.uint8)),
        (np.zeros((8, 8, 3), np.uint8)[::-1], np.zeros((4, 4, 3), np.uint8)),
        (np.zeros((8, 8, 3), np.uint8)[:, :, ::-1], np.zeros((4, 4, 3), np.uint8)),
        (np.zeros((8, 8, 3), np.uint8), np.zeros((4, 8, 3), np.uint8)[:, ::2]),
        (np.zeros((0, 8, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)),
    ],
)
def test_other_layouts_are_refused(image, out):
    with pytest.raises(ValueError, match="resize"):
        resize_bilinear(image, out)


@pytest.mark.parametrize("image", [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8)])
def test_other_types_are_refused(image):
    with pytest.raises(TypeError):
        resize_bicubic(image, np.zeros((4, 4, 3), np.uint8))
