"""Dense supervision of the vision tower: a throw-away head that points at every object from the visual tokens.

A released VLM's vision tower has seen a billion images. The reference one starts from nothing, and the loss of a few
dozen text tokens per image teaches it slowly; asking all 64 visual tokens which object's centre they hold, where inside
their 32-pixel cell, and which digits its pixel is spelled with, teaches it within minutes. Several objects may go by
one name (containers, cubes of one colour): each of their cells is as right as the others. The head is not part of the
policy and never leaves training.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memrt.train.high_level_model import IMAGE_SIZE, SIDE

# New names go to the end: a head that was trained with fewer keeps its rows.
OBJECTS = (
    *("red cube", "green cube", "blue cube", "target", "button", "gripper"),
    *("right-side target", "left-side target", "right button", "left button", "bin", "container", "highlight"),
)
GRIPPER_STATES = ("open", "closed", "holding")
CELL = IMAGE_SIZE // SIDE  # pixels
_POINT = re.compile(r"^(?P<name>[a-z -]+?) <(?P<row>\d+), (?P<col>\d+)>(?: (?P<state>\w+))?")
ABSENT = SIDE * SIDE  # class of an object that is not in the scene
_DIGITS = 6  # three of the row, three of the column
OFFSET_WEIGHT, STATE_WEIGHT, DIGIT_WEIGHT, PLACE_WEIGHT = 4.0, 0.3, 0.3, 20.0  # beside the cell's cross-entropy


def parse_scene(scene: str) -> tuple[list[tuple[str, int, int]], str]:
    """(name, row, col) of every object, and the gripper's state, of a description like "red cube <120, 88>; …".

    Raises ValueError for what does not look like an object.
    """
    points: list[tuple[str, int, int]] = []
    state = GRIPPER_STATES[0]
    for part in scene.split("; "):
        found = _POINT.match(part)
        if found is None:
            raise ValueError(f"not an object with its pixel: {part!r}")
        points.append((found["name"], int(found["row"]), int(found["col"])))
        state = found["state"] or state
    return points, state


@dataclass(frozen=True, slots=True)
class PointingTargets:
    """What the head is asked about n scenes.

    `cells` fp32 [n, objects, 65] is where an object's centre is, equally shared by objects of one name; the last class
    is ABSENT. `image`, `thing`, `cell` int64 [m] and `offset` fp32 [m, 2] list the objects, one per name and cell, with
    the place of the centre inside its cell. `state` int64 [n] is the gripper's.
    """

    cells: Tensor
    image: Tensor
    thing: Tensor
    cell: Tensor
    offset: Tensor
    state: Tensor

    def to(self, device: torch.device) -> PointingTargets:
        """The same targets on `device`."""
        parts = (self.cells, self.image, self.thing, self.cell, self.offset, self.state)
        return PointingTargets(*(part.to(device) for part in parts))


def pointing_targets(scenes: Sequence[str]) -> PointingTargets:
    """Read the descriptions of some scenes; objects out of the picture are left out."""
    cells = torch.zeros(len(scenes), len(OBJECTS), ABSENT + 1)
    listed: dict[tuple[int, int, int], tuple[float, float]] = {}
    states = torch.zeros(len(scenes), dtype=torch.long)
    for number, scene in enumerate(scenes):
        points, state = parse_scene(scene)
        states[number] = GRIPPER_STATES.index(state)
        for name, row, col in points:
            if 0 <= row < IMAGE_SIZE and 0 <= col < IMAGE_SIZE:
                place = (number, OBJECTS.index(name), (row // CELL) * SIDE + col // CELL)
                cells[place] = 1.0
                listed.setdefault(place, (row % CELL / CELL, col % CELL / CELL))
    cells[..., ABSENT] = (cells.sum(-1) == 0).float()
    image, thing, cell = torch.tensor(list(listed), dtype=torch.long).reshape(-1, 3).unbind(1)
    offset = torch.tensor(list(listed.values())).reshape(-1, 2)
    return PointingTargets(cells / cells.sum(-1, keepdim=True), image, thing, cell, offset, states)


class PointingHead(nn.Module):
    """Linear read-outs of the merged visual tokens [n, 64, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.cell = nn.Linear(width, len(OBJECTS))
        self.absent = nn.Linear(width, len(OBJECTS))
        self.offset = nn.Linear(width, len(OBJECTS) * 2)
        self.digits = nn.Linear(width, len(OBJECTS) * _DIGITS * 10)
        self.place = nn.Linear(width, len(OBJECTS) * 2)
        self.state = nn.Linear(width, len(GRIPPER_STATES))

    def loss(self, tokens: Tensor, scenes: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The mean loss, and the mean distance [pixels] to the place pointed at of objects that have a name alone."""
        target = pointing_targets(scenes).to(tokens.device)
        image, thing, true_cell, true_offset = target.image, target.thing, target.cell, target.offset
        x = self.norm(tokens)
        cells = torch.cat([self.cell(x).transpose(1, 2), self.absent(x.mean(1))[..., None]], dim=-1)
        offsets = self.offset(x).unflatten(-1, (len(OBJECTS), 2)).transpose(1, 2)
        there = x[image, true_cell]
        row = torch.arange(len(thing), device=x.device)
        spelled = self.digits(there).unflatten(-1, (len(OBJECTS), _DIGITS, 10))[row, thing]
        loss = F.cross_entropy(cells.flatten(0, 1), target.cells.flatten(0, 1))
        loss = loss + OFFSET_WEIGHT * F.smooth_l1_loss(offsets[image, thing, true_cell], true_offset, beta=0.05)
        loss = loss + DIGIT_WEIGHT * F.cross_entropy(spelled.flatten(0, 1), _spell(true_cell, true_offset).flatten())
        # The decoder's rotary positions tell it where to look but leave no trace in what it reads there: the token
        # itself has to say where in the whole image its object is.
        places = self.place(there).unflatten(-1, (len(OBJECTS), 2))[row, thing]
        misplaced = (places - _pixels(true_cell, true_offset) / IMAGE_SIZE).abs().mean()
        loss = loss + PLACE_WEIGHT * misplaced
        loss = loss + STATE_WEIGHT * F.cross_entropy(self.state(self._at_gripper(x, cells)), target.state)
        with torch.no_grad():
            alone = target.cells[image, thing, true_cell] == 1.0
            guess = cells[image, thing, :-1].argmax(-1)
            found = _pixels(guess, offsets[image, thing, guess])
            error = (found - _pixels(true_cell, true_offset)).norm(dim=-1)[alone].mean()
        return loss, error

    @staticmethod
    def _at_gripper(x: Tensor, cells: Tensor) -> Tensor:
        """Features where the gripper is pointed at: its state is read there. [n, width]"""
        where = cells[:, OBJECTS.index("gripper"), :-1].softmax(-1)
        return (where[:, None] @ x)[:, 0]


def _pixels(cell: Tensor, offset: Tensor) -> Tensor:
    corner = torch.stack([cell // SIDE, cell % SIDE], dim=-1)
    return (corner + offset) * CELL


def _spell(cell: Tensor, offset: Tensor) -> Tensor:
    """Decimal digits of the row, then of the column: int64 [n, 6]."""
    pixels = _pixels(cell, offset).round().long()
    return torch.stack([pixels // 100, pixels // 10 % 10, pixels % 10], dim=-1).flatten(1)
