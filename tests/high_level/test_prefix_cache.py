"""Which rows of the K/V cache two prompts share: all columns of their tokens' identity decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from memrt.runtime.policy.mrope import mrope_positions
from memrt.runtime.policy.prefix_cache import KEY_COLUMNS, HostRows, PrefixCache, grid_key, row_keys

CAPACITY = 16


class NoRows:
    """Keys and values are of no interest here."""

    def feeds(self) -> Mapping[str, NDArray[np.float32]]:
        return {}

    def add(self, start: int, outputs: Mapping[str, NDArray[Any]]) -> None:
        pass


def prompt() -> NDArray[np.int64]:
    """Two words, a 2 x 2 image, two words."""
    ids = np.array([5, 6, 9, 9, 9, 9, 7, 8])
    frames, grids = np.where(ids == 9, 1234, 0), np.where(ids == 9, grid_key(2, 2), 0)
    return row_keys(ids, mrope_positions(ids.tolist(), 9, [(2, 2)]), frames, grids)


@pytest.mark.parametrize("column", range(KEY_COLUMNS))
@pytest.mark.parametrize("row", [0, 2, 6])
def test_every_column_counts(row: int, column: int) -> None:
    """Token id, frame content, grid, and the three rotary positions."""
    cache = PrefixCache(NoRows(), CAPACITY)
    cache.append(prompt(), {})
    other = prompt()
    other[row, column] += 1
    assert cache.keep_common_prefix(other) == row
    cache.append(other[row:], {})
    assert cache.keep_common_prefix(other) == len(other) - 1  # the last row is always computed: its logits are wanted
    assert cache.keep_common_prefix(prompt()) == row


def test_a_shorter_prompt_and_an_empty_cache() -> None:
    cache = PrefixCache(NoRows(), CAPACITY)
    assert cache.keep_common_prefix(prompt()) == 0
    cache.append(prompt(), {})
    assert cache.keep_common_prefix(prompt()[:3]) == 2
    cache.clear()
    assert cache.keep_common_prefix(prompt()) == 0


def _rows(values: list[int]) -> np.ndarray:
    return np.asarray(values, dtype=np.int64)[:, None].repeat(KEY_COLUMNS, axis=1)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=8))
def test_kept_rows_are_exactly_the_common_prefix(prompts: list[list[int]]) -> None:
    rows = HostRows(1, 1, 16, 2)
    cache = PrefixCache(rows, 16)
    held: list[int] = []
    for prompt in prompts:
        reused = cache.keep_common_prefix(_rows(prompt))
        common = 0
        while common < min(len(held), len(prompt) - 1) and held[common] == prompt[common]:
            common += 1
        assert reused == common == cache.length
        new = np.asarray(prompt[reused:], dtype=np.float32).reshape(1, 1, -1, 1).repeat(2, axis=3)
        cache.append(_rows(prompt[reused:]), {"new_keys": new, "new_values": -new})
        held = prompt
        np.testing.assert_array_equal(rows.keys[0, 0, : len(prompt), 0], np.float32(prompt))
        np.testing.assert_array_equal(rows.values[0, 0, : len(prompt), 1], -np.float32(prompt))
