"""Reads the recorded descriptions of a scene: `red cube <120, 88>; container <90, 40>; ...; gripper <74, 130> open`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from memrt.runtime.errors import MemrtError

Pixel = tuple[int, int]  # (row, column) of the 256x256 front image
_PART = re.compile(r"(?P<name>[a-z -]+?) <(?P<row>\d+), (?P<column>\d+)>(?: (?P<state>.+))?")
_HOLDING = "holding the "

# Thirds of the part of the image in which objects stand.
_ROWS, _COLUMNS = (125, 160), (99, 157)
_REGIONS = (
    ("in the upper left", "in the upper middle", "in the upper right"),
    ("on the left", "in the center", "on the right"),
    ("in the lower left", "in the lower middle", "in the lower right"),
)


@dataclass(frozen=True, slots=True)
class SeenScene:
    """What is in sight, in the description's order, and the words of what the gripper holds, or ""."""

    objects: tuple[tuple[str, Pixel], ...]
    held: str

    def of(self, name: str) -> list[Pixel]:
        """The pixels of all objects called `name`."""
        return [pixel for words, pixel in self.objects if words == name]

    def one(self, name: str) -> Pixel | None:
        """The pixel of an object of which there is one; None while it is out of sight."""
        return next(iter(self.of(name)), None)

    def cubes(self) -> list[tuple[str, Pixel]]:
        """All cubes in sight."""
        return [(words, pixel) for words, pixel in self.objects if words.endswith(" cube")]


def read_scene(text: str) -> SeenScene:
    """Raises MemrtError for a text that is no such description; an empty one is a scene of which nothing is known."""
    if not text:
        return SeenScene((), "")
    parts = [_PART.fullmatch(part) for part in text.split("; ")]
    found = [part for part in parts if part]
    if len(found) != len(parts):
        raise MemrtError(
            "recorded description of a scene",
            expected="`name <row, column>` parts, joined by `; `",
            found=repr(text),
            fix="record the episode anew",
        )
    objects = tuple((part["name"], (int(part["row"]), int(part["column"]))) for part in found)
    states = [part["state"] for part in found if part["state"] and part["state"].startswith(_HOLDING)]
    return SeenScene(objects, states[0].removeprefix(_HOLDING) if states else "")


def place(pixel: Pixel, *, grounded: bool) -> str:
    """Where something is: its coordinates, or the part of the image in words."""
    if grounded:
        return f"<{pixel[0]}, {pixel[1]}>"
    row, column = (sum(value >= cut for cut in cuts) for value, cuts in zip(pixel, (_ROWS, _COLUMNS), strict=True))
    return _REGIONS[row][column]


def distance(one: Pixel, other: Pixel) -> float:
    """Between two pixels."""
    return float((one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2) ** 0.5
