"""From prompts and replies to padded batches for the training forward."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from memrt.runtime.policy.chat import IMAGE_PLACEHOLDER, TURN_END, render_chat
from memrt.runtime.policy.mrope import mrope_positions
from memrt.train.high_level_forward import IGNORE, TextBatch
from memrt.train.high_level_model import GRID, MERGE, VISUAL_TOKENS

_SIDE = GRID // MERGE
_PIXEL = re.compile(r" <(\d+), (\d+)>")
_ROUND = 8  # lengths are rounded up to a multiple of this, so that few shapes occur


@dataclass(frozen=True, slots=True)
class Example:
    """One supervised chat: `image` indexes the data set's frames (-1: text only)."""

    image: int
    system: str
    user: str
    reply: str


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids int64 [length] of prompt and reply, positions int64 [3, length], where image and reply begin."""

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    image: int
    image_start: int
    reply_start: int


class ExampleEncoder:
    """Encodes examples with the reference tokenizer; the reply ends with the turn's end token."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._image_token = int(tokenizer.token_to_id("<|image_pad|>"))
        self.pad = int(tokenizer.token_to_id("<|endoftext|>"))
        self.stop = int(tokenizer.token_to_id(TURN_END))
        self._bracket = int(tokenizer.encode(" <1", add_special_tokens=False).ids[0])

    def prompt(self, system: str, user: str) -> NDArray[np.int64]:
        """Token ids of a prompt with at most one image, int64 [length]."""
        images = [VISUAL_TOKENS] * user.count(IMAGE_PLACEHOLDER)
        text = render_chat(system, user, images)
        return np.asarray(self._tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64)

    def encode(self, example: Example) -> Encoded:
        """Prompt and reply of `example`."""
        prompt = self.prompt(example.system, example.user)
        reply = self._tokenizer.encode(example.reply, add_special_tokens=False).ids
        ids = np.concatenate([prompt, np.asarray([*reply, self.stop], dtype=np.int64)])
        has_image = example.image >= 0
        grids = [(_SIDE, _SIDE)] if has_image else []
        start = int(np.argmax(ids == self._image_token)) if has_image else 0
        positions = mrope_positions(ids.tolist(), self._image_token, grids)
        return Encoded(ids, positions, example.image, start, len(prompt))

    def coordinates(self, rows: Sequence[Encoded], length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Where replies about an image open a coordinate, int64 [n] in texts x `length`; its pixel, fp32 [n, 2]."""
        where, pixels = [], []
        for number, row in enumerate(rows):
            for opening in np.flatnonzero(row.ids == self._bracket):
                found = _PIXEL.match(self._tokenizer.decode(row.ids[opening : opening + 10].tolist()))
                if row.image >= 0 and opening >= row.reply_start and found:
                    where.append(number * length + int(opening))
                    pixels.append((float(found[1]), float(found[2])))
        return torch.tensor(where, dtype=torch.long), torch.tensor(pixels).reshape(-1, 2)

    def decode(self, ids: Sequence[int]) -> str:
        """Text up to the first stop token."""
        kept = list(ids)
        if self.stop in kept:
            kept = kept[: kept.index(self.stop)]
        return str(self._tokenizer.decode(kept, skip_special_tokens=False))

    def collate(self, rows: Sequence[Encoded]) -> tuple[TextBatch, NDArray[np.int64]]:
        """Pad on the right. Also returns the distinct images int64 [images]; the batch's `image` indexes them."""
        longest = max(len(row.ids) for row in rows)
        length = -(-longest // _ROUND) * _ROUND
        ids = np.full((len(rows), length), self.pad, dtype=np.int64)
        positions = np.zeros((3, len(rows), length), dtype=np.int64)
        targets = np.full((len(rows), length), IGNORE, dtype=np.int64)
        for number, row in enumerate(rows):
            count = len(row.ids)
            ids[number, :count] = row.ids
            positions[:, number, :count] = row.positions
            targets[number, row.reply_start - 1 : count - 1] = row.ids[row.reply_start :]
        images = sorted({row.image for row in rows if row.image >= 0})
        local = {image: number for number, image in enumerate(images)}
        batch = TextBatch(
            ids=torch.from_numpy(ids),
            positions=torch.from_numpy(positions),
            image=torch.tensor([local.get(row.image, -1) for row in rows]),
            image_start=torch.tensor([row.image_start for row in rows]),
            targets=torch.from_numpy(targets),
        )
        return batch, np.asarray(images, dtype=np.int64)
