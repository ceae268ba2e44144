from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.preprocess import (
    NormStats,
    Quantiles,
    discretise_state,
    format_prompt,
    norm_stats_document,
    normalise_image,
    resize_with_pad,
    to_absolute,
    to_delta,
)

FLOATS = st.floats(-5.0, 5.0, allow_nan=False)


def test_resize_keeps_the_aspect_ratio_and_centres_the_picture() -> None:
    image = np.random.default_rng(0).integers(1, 256, (48, 64, 3), dtype=np.uint8)
    square = resize_with_pad(image, 32)
    inner = np.asarray(Image.fromarray(image).resize((32, 24), Image.Resampling.BILINEAR))
    assert not square[:4].any()
    assert not square[28:].any()
    np.testing.assert_array_equal(square[4:28], inner)


def test_resize_antialiases() -> None:
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[:, ::2] = 255  # finer than the result can show: it must come out grey, not striped
    assert np.ptp(resize_with_pad(stripes, 24)[:, 2:-2].astype(int)) < 16


def test_a_square_image_of_the_right_size_is_untouched() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert resize_with_pad(image, 32) is image


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_resize_refuses_anything_but_8_bit_rgb(image: np.ndarray) -> None:
    with pytest.raises(MemrtError, match=r"uint8 \[height, width, 3\]"):
        resize_with_pad(image, 32)


def test_normalised_images_span_minus_one_to_one() -> None:
    values = normalise_image(np.array([0, 255], np.uint8))
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, [-1.0, 1.0])


@given(st.lists(st.tuples(FLOATS, st.floats(0.0, 5.0)), min_size=1, max_size=9), FLOATS)
def test_normalisation_is_invertible_even_where_nothing_moved(ranges: list[tuple[float, float]], value: float) -> None:
    low = np.array([low for low, _ in ranges])
    quantiles = Quantiles(low, low + np.array([span for _, span in ranges]))
    values = np.full(len(ranges), value)
    np.testing.assert_allclose(quantiles.unnormalise(quantiles.normalise(values)), values, atol=1e-9)


def test_quantiles_become_minus_one_and_one() -> None:
    quantiles = Quantiles(np.array([-2.0]), np.array([4.0]))
    np.testing.assert_allclose(quantiles.normalise(np.array([[-2.0], [1.0], [4.0]]))[:, 0], [-1, 0, 1], atol=1e-6)


@given(st.lists(st.floats(-3.0, 3.0), min_size=1, max_size=20))
def test_state_bins_are_openpis_inside_the_range_and_clipped_outside(values: list[float]) -> None:
    found = discretise_state(np.array(values))
    for value, found_bin in zip(values, found, strict=True):
        # The definition, one value at a time: bin k begins at -1 + k/128.
        expected = sum(value >= -1.0 + k / 128.0 for k in range(256)) - 1
        assert found_bin == min(255, max(0, expected))


def test_prompt_of_the_released_template() -> None:
    prompt = format_prompt(
        "Task: {subgoal}, State: {state};\nAction: ",
        goal="unused",
        subgoal="  Pick_up the\nred cube <120, 88> ",
        state=[0, 128, 255],
        lower_case=True,
    )
    assert prompt == "Task: pick up the red cube <120, 88>, State: 0 128 255;\nAction: "


def test_braces_in_a_text_are_plain_characters() -> None:
    assert format_prompt("{goal}|{subgoal}", goal="{subgoal}", subgoal="{0}") == "{subgoal}|{0}"


@given(st.integers(0, 2**32 - 1))
def test_delta_actions_are_invertible_and_leave_the_gripper_absolute(seed: int) -> None:
    rng = np.random.default_rng(seed)
    actions, state, mask = rng.normal(size=(5, 8)), rng.normal(size=8), [True] * 7 + [False]
    delta = to_delta(actions, state, mask)
    np.testing.assert_allclose(delta[:, :7], actions[:, :7] - state[:7])
    np.testing.assert_array_equal(delta[:, 7], actions[:, 7])
    np.testing.assert_allclose(to_absolute(delta, state, mask), actions, atol=1e-12)


def test_a_mask_of_another_length_is_refused() -> None:
    with pytest.raises(MemrtError, match="delta mask"):
        to_delta(np.zeros((2, 8)), np.zeros(8), [True] * 7)


def test_norm_stats_round_trip_in_openpis_layout(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    state, actions = rng.normal(size=(500, 8)), rng.normal(size=(500, 4, 8)) * 3.0
    document = norm_stats_document(state, actions)
    assert set(document["norm_stats"]["actions"]) == {"mean", "std", "q01", "q99"}
    (tmp_path / "norm_stats.json").write_text(json.dumps(document))
    stats = NormStats.load(tmp_path / "norm_stats.json")
    np.testing.assert_allclose(stats.state.q01, np.quantile(state, 0.01, axis=0))
    np.testing.assert_allclose(stats.actions.q99, np.quantile(actions.reshape(-1, 8), 0.99, axis=0))


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}",
        '{"norm_stats": {"state": {"mean": [0], "std": [1]}, "actions": {"mean": [0], "std": [1]}}}',
        '{"norm_stats": {"state": {"q01": [1], "q99": [0]}, "actions": {"q01": [0], "q99": [1]}}}',
        '{"norm_stats": {"state": {"q01": [0, 0], "q99": [1]}, "actions": {"q01": [0], "q99": [1]}}}',
    ],
)
def test_unusable_norm_stats_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "norm_stats.json"
    path.write_text(text)
    with pytest.raises(MemrtError, match="norm stats"):
        NormStats.load(path)
