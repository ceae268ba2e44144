"""Positions, rotary tables and prefix identity."""

import numpy as np
import pytest
import tiny_qwen as tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.mrope import RotaryTable, mrope_positions, rope_delta

IMAGE = 7
GRIDS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), max_size=3)


def _prompt(grids: list[tuple[int, int]], texts: list[int]) -> list[int]:
    ids: list[int] = []
    for number, length in enumerate(texts):
        ids += [1] * length
        if number < len(grids):
            rows, columns = grids[number]
            ids += [IMAGE] * (rows * columns)
    return ids


@given(GRIDS, st.data())
def test_positions_match_transformers(grids: list[tuple[int, int]], data: st.DataObject) -> None:
    texts = [data.draw(st.integers(1, 5)) for _ in range(len(grids) + 1)]  # text between images, as in Qwen's format
    ids = _prompt(grids, texts)
    ours = mrope_positions(ids, IMAGE, grids)
    tokens = torch.tensor([ids])
    thw = torch.tensor([[1, rows * 2, columns * 2] for rows, columns in grids]) if grids else None
    expected, delta = tiny.model().model.get_rope_index(
        tokens, mm_token_type_ids=(tokens == IMAGE).int(), image_grid_thw=thw
    )
    np.testing.assert_array_equal(ours, expected[:, 0].numpy())
    assert rope_delta(ours) == int(delta)


def test_a_run_of_placeholders_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(MemrtError, match="visual tokens"):
        mrope_positions([1, IMAGE, IMAGE, 1], IMAGE, [(2, 2)])


def test_sectioned_table_matches_transformers() -> None:
    from transformers import Qwen2_5_VLTextConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRotaryEmbedding

    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 5, 7]}
    config = Qwen2_5_VLTextConfig(hidden_size=64, num_attention_heads=2, rope_parameters=rope)
    positions = np.random.default_rng(0).integers(0, 700, (3, 50))
    cos, sin = RotaryTable(32, 1e6, (4, 5, 7), "sectioned")(positions)
    expected = Qwen2_5_VLRotaryEmbedding(config)(torch.zeros(1), torch.from_numpy(positions)[:, None])
    np.testing.assert_allclose(cos, expected[0][0, :, :16], atol=1e-6)
    np.testing.assert_allclose(sin, expected[1][0, :, :16], atol=1e-6)


def test_sections_that_do_not_fill_the_head_are_refused() -> None:
    with pytest.raises(MemrtError, match="rotary sections"):
        RotaryTable(32, 1e6, (4, 5, 6))


def test_rotary_table_matches_transformers() -> None:
    settings = tiny.model().config.text_config.rope_parameters
    positions = np.random.default_rng(0).integers(0, 700, (3, 50))
    cos, sin = RotaryTable(32, settings["rope_theta"], settings["mrope_section"])(positions)
    expected = tiny.model().model.language_model.rotary_emb(torch.zeros(1), torch.from_numpy(positions)[:, None])
    np.testing.assert_allclose(cos, expected[0][0, :, :16], atol=1e-6)
    np.testing.assert_allclose(sin, expected[1][0, :, :16], atol=1e-6)
