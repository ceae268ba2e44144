"""Multimodal rotary positions (mrope) of Qwen2.5-VL and Qwen3-VL, on the host, in fp32.

Every token has three positions: temporal, row, column. Text moves all three together; an image's tokens share one
temporal position and spread over rows and columns; after an image the text continues past its longer side. So the
position of the next token is not the number of tokens before it: the difference is the `rope_delta`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from memrt.runtime.errors import MemrtError

Positions = NDArray[np.int64]


def mrope_positions(ids: Sequence[int], image_token: int, grids: Sequence[tuple[int, int]]) -> Positions:
    """Positions int64 [3, tokens] of a prompt.

    `grids` holds (rows, columns) of visual tokens of each image, in order. Refuses a run of `image_token` whose length
    is not its grid's size.
    """
    tokens = np.asarray(ids, dtype=np.int64)
    positions = np.empty((3, len(tokens)), dtype=np.int64)
    cursor = position = 0
    for rows, columns in grids:
        placeholders = np.flatnonzero(tokens[cursor:] == image_token)
        start = cursor + int(placeholders[0]) if len(placeholders) else len(tokens)
        end = start + rows * columns
        if end > len(tokens) or not (tokens[start:end] == image_token).all():
            raise MemrtError(
                "visual tokens in the prompt",
                expected=f"{rows}x{columns} in a row",
                found=len(placeholders),
                fix="render the prompt with the vision engine's own token count",
            )
        positions[:, cursor:start] = np.arange(position, position + start - cursor)
        position += start - cursor
        positions[0, start:end] = position
        positions[1, start:end] = position + np.repeat(np.arange(rows), columns)
        positions[2, start:end] = position + np.tile(np.arange(columns), rows)
        position += max(rows, columns)
        cursor = end
    positions[:, cursor:] = np.arange(position, position + len(tokens) - cursor)
    return positions


def rope_delta(positions: Positions) -> int:
    """What to add to a later token's index to get its position (all three agree on text)."""
    delta: int = int(positions.max(initial=-1)) + 1 - positions.shape[1]
    return delta


class RotaryTable:
    """cos and sin of mrope positions: fp32 [tokens, head_dim / 2].

    `sections` counts the frequencies that turn with the temporal position, the row and the column. `sectioned`
    (Qwen2.5-VL): in this order. `interleaved` (Qwen3-VL): frequency j turns with the row when j mod 3 = 1 and
    j < 3 * sections[1], with the column when j mod 3 = 2 and j < 3 * sections[2], else with the temporal position.
    """

    def __init__(
        self,
        head_dim: int,
        theta: float,
        sections: Sequence[int],
        layout: Literal["interleaved", "sectioned"] = "interleaved",
    ) -> None:
        if 2 * sum(sections) != head_dim:
            raise MemrtError(
                "rotary sections",
                expected=f"{head_dim // 2} frequencies, half of the head's width",
                found=list(sections),
                fix="export the policy again",
            )
        exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
        self._inverse_frequency = (1.0 / np.float32(theta) ** exponent).astype(np.float32)
        if layout == "sectioned":
            self._axis = np.repeat(np.arange(3), sections)
            return
        self._axis = np.zeros(head_dim // 2, dtype=np.int64)
        for axis in (1, 2):
            self._axis[axis : sections[axis] * 3 : 3] = axis

    def __call__(self, positions: Positions) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """cos and sin for positions int64 [3, tokens]."""
        angles = positions[self._axis].T.astype(np.float32) * self._inverse_frequency
        return np.cos(angles), np.sin(angles)
