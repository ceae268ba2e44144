"""Object coordinates inside subgoals and memories.

They travel through memory and prompts as plain text; only drawing and clicking may ask what they mean, because the
order is a property of the checkpoint: RoboMME's labels are `<row, column>` in pixels of the 256x256 front image, though
the report prints `<x, y>`. Some checkpoints answer on Qwen's 0-1000 grid instead, `<|box_start|>(a,b)<|box_end|>`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

CoordinateOrder = Literal["row_column", "column_row"]
FRONT_IMAGE_SIZE = 256  # pixels, square (SPECS 1.1)
_GRID = 1000  # Qwen's box coordinates are thousandths of the image's side

_PIXELS = r"<(?P<first>[0-9]{1,4}), ?(?P<second>[0-9]{1,4})>"
_BOX = r"<\|box_start\|>\((?P<box_first>[0-9]{1,4}), ?(?P<box_second>[0-9]{1,4})\)<\|box_end\|>"
_COORDINATE = re.compile(f"{_PIXELS}|{_BOX}")


@dataclass(frozen=True, slots=True)
class Coordinate:
    """A pixel of the front image, and where in the text it was written: `text[start:stop]`."""

    row: int
    column: int
    start: int
    stop: int


def find_coordinates(
    text: str, order: CoordinateOrder = "row_column", image_size: int = FRONT_IMAGE_SIZE
) -> list[Coordinate]:
    """All coordinates in `text`, first to last; those outside the image are left out (a VLM may write anything)."""
    found = []
    for match in _COORDINATE.finditer(text):
        first, second = _pixels(match, image_size)
        row, column = (first, second) if order == "row_column" else (second, first)
        if row < image_size and column < image_size:
            found.append(Coordinate(row, column, match.start(), match.end()))
    return found


def format_coordinate(row: int, column: int, order: CoordinateOrder = "row_column") -> str:
    """The text of one pixel, e.g. `<120, 88>`."""
    first, second = (row, column) if order == "row_column" else (column, row)
    return f"<{first}, {second}>"


def boxes_to_pixels(text: str, image_size: int = FRONT_IMAGE_SIZE) -> str:
    """Rewrite 0-1000 grid coordinates as pixels, order unchanged, for an action expert trained on pixels."""
    return _COORDINATE.sub(lambda match: "<{}, {}>".format(*_pixels(match, image_size)), text)


def without_coordinates(text: str) -> str:
    """The text with every coordinate, and the space before it, removed: a grounded subgoal becomes a plain one."""
    return re.sub(rf" ?(?:{_COORDINATE.pattern})", "", text)


def _pixels(match: re.Match[str], image_size: int) -> tuple[int, int]:
    if match["first"] is not None:
        return int(match["first"]), int(match["second"])
    return int(match["box_first"]) * image_size // _GRID, int(match["box_second"]) * image_size // _GRID
