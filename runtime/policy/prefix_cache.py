"""The decoder's K/V rows, and which tokens they belong to.

Two prompts share a row only if they agree on everything that row was computed from: the token id, the content of the
image behind a placeholder (all placeholders share one token id), the image's grid, and the three rotary positions - and
if they agree on all rows before it. The cache finds that longest common prefix, so that only the rest is computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from memrt.runtime.engine import TensorRtEngine
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


class Rows(Protocol):
    """Where keys and values lie. Row i of the cache belongs to token i."""

    def feeds(self) -> Mapping[str, NDArray[np.float32]]:
        """What the decoder must be given of them."""
        ...

    def add(self, start: int, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Take the rows that the decoder's last call computed (`outputs`), from row `start` on."""
        ...


class HostRows:
    """`keys`, `values` float32 [layers, kv_heads, capacity, head_dim] in host memory."""

    def __init__(self, layers: int, kv_heads: int, capacity: int, head_dim: int) -> None:
        shape = (layers, kv_heads, capacity, head_dim)
        self.keys, self.values = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    def feeds(self) -> Mapping[str, NDArray[np.float32]]:
        """Both, whole."""
        return {"keys": self.keys, "values": self.values}

    def add(self, start: int, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Copy `new_keys` and `new_values` [layers, kv_heads, tokens, head_dim]."""
        end = start + outputs["new_keys"].shape[2]
        self.keys[:, :, start:end] = outputs["new_keys"]
        self.values[:, :, start:end] = outputs["new_values"]


class DeviceRows:
    """Keys and values that stay in the memory of the decoder's GPU: a real model's are 100 MB, too much per token."""

    def __init__(self, decoder: TensorRtEngine) -> None:
        """From here on `decoder` neither takes nor returns them."""
        decoder.keep_on_device(("keys", "values", "new_keys", "new_values"))
        self._decoder = decoder

    def feeds(self) -> Mapping[str, NDArray[np.float32]]:
        """Nothing."""
        return {}

    def add(self, start: int, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Copy on the device; nothing of it is in `outputs`."""
        self._decoder.append_rows("keys", "new_keys", start)
        self._decoder.append_rows("values", "new_values", start)


class PrefixCache:
    """Static-shape cache: the first `length` of `capacity` rows hold, and belong to known tokens."""

    def __init__(self, rows: Rows, capacity: int) -> None:
        """A cache that holds nothing yet."""
        self.rows, self.capacity, self.length = rows, capacity, 0
        self._identity = np.zeros((capacity, KEY_COLUMNS), dtype=np.int64)

    def keep_common_prefix(self, identity: NDArray[np.int64]) -> int:
        """Drop what differs from `identity`; returns how many rows are reused.

        The last token of a prompt is always computed anew, since its logits are wanted.
        """
        limit = min(self.length, len(identity) - 1)
        differs = (self._identity[:limit] != identity[:limit]).any(axis=1)
        self.length = int(np.argmax(differs)) if differs.any() else max(limit, 0)
        return self.length

    def append(self, identity: NDArray[np.int64], outputs: Mapping[str, NDArray[Any]]) -> None:
        """Take the rows that the decoder computed for the tokens `identity` (`Rows.add`)."""
        end = self.length + len(identity)
        self.rows.add(self.length, outputs)
        self._identity[self.length : end] = identity
        self.length = end

    def cut(self, rows: int) -> None:
        """Drop the last `rows` rows."""
        self.length -= rows

    def clear(self) -> None:
        """Forget everything."""
        self.length = 0
