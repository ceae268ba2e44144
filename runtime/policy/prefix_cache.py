"""The decoder's K/V rows, and which tokens they belong to.

Two prompts share a row only if they agree on everything that row was computed from: the token id, the content of the
image behind a placeholder (all placeholders share one token id), the image's grid, and the three rotary positions - and
if they agree on all rows before it. The cache finds that longest common prefix, so that only the rest is computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memrt.runtime.policy.mrope import Positions

KEY_COLUMNS = 6  # token id, frame content, grid, temporal, row, column


def row_keys(
    ids: NDArray[np.int64], positions: Positions, frames: NDArray[np.int64], grids: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Identity of every token, int64 [tokens, 6]; `frames` and `grids` int64 [tokens] are 0 for text.

    For a visual token they are its frame's content id and `grid_key`.
    """
    return np.column_stack((ids, frames, grids, positions.T)).astype(np.int64, copy=False)


def grid_key(rows: int, columns: int) -> int:
    """One number for a grid of visual tokens."""
    return rows << 16 | columns


@dataclass(slots=True, eq=False)
class PrefixCache:
    """Static-shape cache: `keys`, `values` fp32 [layers, kv_heads, capacity, head_dim]; `length` rows hold."""

    keys: NDArray[np.float32]
    values: NDArray[np.float32]
    _identity: NDArray[np.int64]
    length: int = 0

    @staticmethod
    def empty(layers: int, kv_heads: int, capacity: int, head_dim: int) -> PrefixCache:
        """A cache that holds nothing yet."""
        shape = (layers, kv_heads, capacity, head_dim)
        identity = np.zeros((capacity, KEY_COLUMNS), dtype=np.int64)
        return PrefixCache(np.zeros(shape, np.float32), np.zeros(shape, np.float32), identity)

    @property
    def capacity(self) -> int:
        """How many rows fit."""
        return int(self.keys.shape[2])

    def keep_common_prefix(self, identity: NDArray[np.int64]) -> int:
        """Drop what differs from `identity`; returns how many rows are reused.

        The last token of a prompt is always computed anew, since its logits are wanted.
        """
        limit = min(self.length, len(identity) - 1)
        differs = (self._identity[:limit] != identity[:limit]).any(axis=1)
        self.length = int(np.argmax(differs)) if differs.any() else max(limit, 0)
        return self.length

    def append(self, identity: NDArray[np.int64], keys: NDArray[np.float32], values: NDArray[np.float32]) -> None:
        """Take the rows that the decoder returned for the tokens `identity`: [layers, kv_heads, tokens, head_dim]."""
        end = self.length + len(identity)
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self._identity[self.length : end] = identity
        self.length = end

    def clear(self) -> None:
        """Forget everything."""
        self.length = 0
