"""From prompts and replies to padded batches for the training forward."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from memrt.runtime.policy.chat import IMAGE_PLACEHOLDER, TURN_END, render_chat
from memrt.runtime.policy.mrope import mrope_positions
from memrt.train.high_level_forward import IGNORE, TextBatch
from memrt.train.high_level_model import SIDE, VISUAL_TOKENS
from memrt.train.high_level_pointing import CELL
from memrt.train.high_level_recall import pointed_at, told_in
from memrt.train.labels.scene_text import Pixel

_PIXEL = re.compile(r" <(\d+), (\d+)>")
_MEMORY = "<mem>"  # from here on a reply speaks of the past, too
_BEFORE_SIDE = "<spatial_mem>Cube"  # train/labels/spatial_layouts.py, StopCube
# Nobody can say a pixel's last digit for sure: digits were four fifths of the loss of a grounded answer, and their
# noise hid the few words that decide what comes next. A policy's other numbers are words, but for a keyframe's place.
DIGIT_WEIGHT = 0.4
RECALLED_WEIGHT = 2.0  # of a subgoal's digits that are to be recalled: those can be said for sure
_NOWHERE = (math.nan, math.nan)
_COORDINATE_TOKENS = 9  # "<126, 143>": no digit of the next one
_ROUND = 8  # lengths are rounded up to a multiple of this, so that few shapes occur


@dataclass(frozen=True, slots=True)
class Example:
    """One supervised chat: `images` index the data set's frames, in the order of the placeholders in `user`.

    `watched`: the pixel (row, column) in the newest image of what the step under way is about; `beside`: of what it has
    to be seen beside, None for the hand; `over`: whether that step is over. All where it is known which step that is.
    `sides`: the pixels of what travels and of the place that it passes, where the reply tells on which side of the one
    the other is. `shown`: which of `images` shows what the subgoal points at as it cannot be told from others any more
    (high_level_recall.py), and where.
    """

    images: tuple[int, ...]
    system: str
    user: str
    reply: str
    watched: Pixel | None = None
    beside: Pixel | None = None
    over: bool | None = None
    sides: tuple[Pixel, Pixel] | None = None
    shown: tuple[int, Pixel] | None = None

    def shifted(self, first: int) -> Example:
        """The same chat about the same frames, where those of its data set come after `first` others."""
        return replace(self, images=tuple(first + image for image in self.images))


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids int64 [length] of prompt and reply, positions int64 [3, length], where images and reply begin.

    `read` says of every coordinate of the reply whether it is read from the newest image: what a memory takes over from
    the prompt may be out of sight. `recalled`: of what the subgoal points at and the newest image does not tell, the
    two tokens of the prompt that hold its row and its column; and its pixel where they are an image's, not digits.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    images: tuple[int, ...]
    image_starts: tuple[int, ...]
    reply_start: int
    read: tuple[bool, ...]
    recalled: tuple[int, int, Pixel | None] | None
    watched: Pixel | None
    beside: Pixel | None
    over: bool | None
    sides: tuple[Pixel, Pixel] | None


@dataclass(frozen=True, slots=True)
class Looks:
    """Tokens from which something is to be found in their text or its images: `where` int64 [n] in texts x length.

    `token` int64 [n] is the token of the text that holds it, `pixels` fp32 [n, 2] what is to be found there.
    """

    where: torch.Tensor
    token: torch.Tensor
    pixels: torch.Tensor

    @staticmethod
    def of(looks: Sequence[tuple[int, int, tuple[float, float]]]) -> Looks:
        """Of (where, token, pixel)."""
        where, tokens, pixels = zip(*looks, strict=True) if looks else ((), (), ())
        places = (torch.tensor(numbers, dtype=torch.long) for numbers in (where, tokens))
        return Looks(*places, torch.tensor(pixels, dtype=torch.float32).reshape(-1, 2))

    def to(self, device: torch.device) -> Looks:
        """The same on `device`."""
        return Looks(self.where.to(device), self.token.to(device), self.pixels.to(device))


@dataclass(frozen=True, slots=True)
class Beginnings:
    """The last token of each of n prompts, int64 [n] in texts x length, where the reply's first token is decided.

    With where in its text the newest image begins, int64 [n]; what is watched in it and what beside, fp32 [n, 2], and
    whether the step is over, fp32 [n], all NaN where unknown; and that image's number.
    """

    where: torch.Tensor
    image_start: torch.Tensor
    watched: torch.Tensor
    beside: torch.Tensor
    over: torch.Tensor
    images: tuple[int, ...]

    def to(self, device: torch.device) -> Beginnings:
        """The same on `device`."""
        parts = (self.where, self.image_start, self.watched, self.beside, self.over)
        return Beginnings(*(part.to(device) for part in parts), images=self.images)


class ExampleEncoder:
    """Encodes examples with the reference tokenizer; the reply ends with the turn's end token."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._image_token = int(tokenizer.token_to_id("<|image_pad|>"))
        self.pad = int(tokenizer.token_to_id("<|endoftext|>"))
        self.stop = int(tokenizer.token_to_id(TURN_END))
        self._bracket = int(tokenizer.encode(" <1", add_special_tokens=False).ids[0])
        self._space = int(tokenizer.encode("1, 2", add_special_tokens=False).ids[-2])  # before the column
        self._before_side = tokenizer.encode(_BEFORE_SIDE, add_special_tokens=False).ids
        self._digits = torch.tensor([int(tokenizer.token_to_id(digit)) for digit in "0123456789"])

    def prompt(self, system: str, user: str) -> NDArray[np.int64]:
        """Token ids of a prompt with its images' placeholders, int64 [length]."""
        return np.asarray(self._prompt(system, user)[1].ids, dtype=np.int64)

    def _prompt(self, system: str, user: str) -> tuple[str, Encoding]:
        text = render_chat(system, user, [VISUAL_TOKENS] * user.count(IMAGE_PLACEHOLDER))
        return text, self._tokenizer.encode(text, add_special_tokens=False)

    def encode(self, example: Example) -> Encoded:
        """Prompt and reply of `example`."""
        text, encoding = self._prompt(example.system, example.user)
        prompt = np.asarray(encoding.ids, dtype=np.int64)
        reply = self._tokenizer.encode(example.reply, add_special_tokens=False).ids
        ids = np.concatenate([prompt, np.asarray([*reply, self.stop], dtype=np.int64)])
        starts = np.flatnonzero(ids == self._image_token)[::VISUAL_TOKENS]
        if len(starts) != len(example.images):
            raise ValueError(f"{len(example.images)} images for {len(starts)} placeholders: {example.user!r}")
        positions = mrope_positions(ids.tolist(), self._image_token, [(SIDE, SIDE)] * len(starts))
        begins, read = tuple(starts.tolist()), _read(example)
        recalled = _recalled(example, text, encoding, begins)
        known = (recalled, example.watched, example.beside, example.over, example.sides)
        return Encoded(ids, positions, example.images, begins, len(prompt), read, *known)

    def coordinates(self, rows: Sequence[Encoded], length: int) -> Looks:
        """Where replies open a coordinate that they read from the picture."""
        looks = []
        for number, row in enumerate(rows):
            openings = np.flatnonzero(row.ids == self._bracket)
            for opening, read in zip(openings[openings >= row.reply_start], row.read, strict=False):
                found = _PIXEL.match(self._tokenizer.decode(row.ids[opening : opening + 10].tolist()))
                if found and read:
                    pixel = (int(found[1]), int(found[2]))
                    token = _visual_token(row.image_starts[-1], pixel)
                    looks.append((number * length + int(opening), token, pixel))
        return Looks.of(looks)

    def _first_coordinate(self, row: Encoded) -> int:
        return row.reply_start + _position(row.ids[row.reply_start :], [self._bracket])

    def recalls(self, rows: Sequence[Encoded], length: int) -> Looks:
        """Where subgoals are about to spell a row or a column that they recall; no pixel where it is read in digits."""
        looks = []
        for number, row in enumerate(rows):
            if row.recalled is not None:
                opening = self._first_coordinate(row)
                before_column = opening + _position(row.ids[opening:], [self._space])
                for place, token in zip((opening, before_column), row.recalled, strict=False):
                    looks.append((number * length + place, token, row.recalled[2] or _NOWHERE))
        return Looks.of(looks)

    def sides(self, rows: Sequence[Encoded], length: int) -> tuple[Looks, Looks]:
        """Where replies are about to tell a side, with the pixel of what travels, and with that of what it passes."""
        travellers, targets = [], []
        for number, row in enumerate(rows):
            if row.sides is None:
                continue
            told = row.reply_start + _position(row.ids[row.reply_start :], self._before_side)
            for looks, pixel in zip((travellers, targets), row.sides, strict=True):
                looks.append((number * length + told, _visual_token(row.image_starts[-1], pixel), pixel))
        return Looks.of(travellers), Looks.of(targets)

    @staticmethod
    def beginnings(rows: Sequence[Encoded], length: int) -> Beginnings:
        """Where the replies about images begin."""
        seen = [(number, row) for number, row in enumerate(rows) if row.images]
        return Beginnings(
            where=torch.tensor([number * length + row.reply_start - 1 for number, row in seen], dtype=torch.long),
            image_start=torch.tensor([row.image_starts[-1] for _, row in seen], dtype=torch.long),
            watched=torch.tensor([row.watched or _NOWHERE for _, row in seen]).reshape(-1, 2),
            beside=torch.tensor([row.beside or _NOWHERE for _, row in seen]).reshape(-1, 2),
            over=torch.tensor([math.nan if row.over is None else float(row.over) for _, row in seen]),
            images=tuple(row.images[-1] for _, row in seen),
        )

    def mean_loss(self, losses: torch.Tensor, batch: TextBatch, rows: Sequence[Encoded]) -> torch.Tensor:
        """The mean of the asked tokens' `losses` [n] of `rows`, which `batch` is made of; digits by their weights."""
        digits = torch.isin(batch.targets, self._digits.to(batch.targets.device))
        weights = torch.where(digits, DIGIT_WEIGHT, 1.0)
        for number, row in enumerate(rows):
            if row.recalled is not None:
                opening = self._first_coordinate(row)
                spelled = slice(opening, opening + _COORDINATE_TOKENS)
                weights[number, spelled][digits[number, spelled]] = RECALLED_WEIGHT
        weights = weights[batch.targets != IGNORE]
        return (losses * weights).sum() / weights.sum()

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
        images = sorted({image for row in rows for image in row.images})
        local = {image: number for number, image in enumerate(images)}
        starts = [number * length + start for number, row in enumerate(rows) for start in row.image_starts]
        batch = TextBatch(
            ids=torch.from_numpy(ids),
            positions=torch.from_numpy(positions),
            image=torch.tensor([local[image] for row in rows for image in row.images], dtype=torch.long),
            image_start=torch.tensor(starts, dtype=torch.long),
            targets=torch.from_numpy(targets),
        )
        return batch, np.asarray(images, dtype=np.int64)


def _read(example: Example) -> tuple[bool, ...]:
    """Of every coordinate of the reply, whether the picture shows it.

    Of what to do, all that sight can tell from others; of a memory, what is new.
    """
    if not example.images:
        return ()
    memory, seen = len(example.reply.partition(_MEMORY)[0]), pointed_at(example.reply) is None
    return tuple(
        seen if found.start() < memory else found[0] not in example.user for found in _PIXEL.finditer(example.reply)
    )


def _recalled(
    example: Example, prompt: str, encoding: Encoding, starts: Sequence[int]
) -> tuple[int, int, Pixel | None] | None:
    """`Encoded.recalled` of `example`, whose `prompt` has this `encoding`, and images from `starts` on."""
    pointed = pointed_at(example.reply)
    if pointed is None:
        return None
    told = told_in(prompt, pointed[1])
    if told is not None:
        row, column = (int(encoding.char_to_token(told.start(group))) for group in (1, 2))
        return row, column, None
    if example.shown is None:
        return None
    token = _visual_token(starts[example.shown[0]], example.shown[1])
    return token, token, pointed[1]


def _visual_token(image_start: int, pixel: Pixel) -> int:
    """The token that holds `pixel` of the image that begins at `image_start`."""
    return image_start + pixel[0] // CELL * SIDE + pixel[1] // CELL


def _position(ids: NDArray[np.int64], part: Sequence[int]) -> int:
    """Where in `ids` the last token of `part` stands."""
    width = len(part)
    starts = (start for start in range(len(ids) - width + 1) if ids[start : start + width].tolist() == list(part))
    return next(starts) + width - 1
