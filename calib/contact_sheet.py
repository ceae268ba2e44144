"""All images of a calibration set on one sheet, grouped by level and role, so that a person can see what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from memrt.calib.calibration_set import ROLES, CalibrationSet
from memrt.runtime.errors import MemrtError

TILE, CAPTION, HEADING, GAP = 96, 13, 26, 4  # pixels
COLUMNS = 12
PAPER, INK, SOFT = (250, 250, 248), (20, 22, 24), (110, 114, 118)

Tile = tuple[str, NDArray[np.uint8]]  # caption and image


def write_contact_sheet(recorded: CalibrationSet, path: str | Path, *, columns: int = COLUMNS) -> tuple[int, int]:
    """Write the sheet as PNG; returns its width and height. The same set gives the same bytes.

    Raises `MemrtError` when the file cannot be written there.
    """
    sheet = contact_sheet(recorded, columns=columns)
    try:
        sheet.save(path, format="PNG", optimize=True)
    except OSError as error:
        raise MemrtError(
            f"contact sheet {path}", expected="a file that can be written", found=error, fix="choose another path"
        ) from error
    return sheet.size


def contact_sheet(recorded: CalibrationSet, *, columns: int = COLUMNS) -> Image.Image:
    """The sheet: one heading per level and role, below it every image as a tile with its episode and camera."""
    groups = [(heading, tiles) for heading, tiles in _groups(recorded) if tiles]
    rows = [-(-len(tiles) // columns) for _, tiles in groups]
    width = columns * (TILE + GAP) + GAP
    height = sum(HEADING + count * (TILE + CAPTION + GAP) for count in rows) + GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    top = 0
    for (heading, tiles), count in zip(groups, rows, strict=True):
        draw.text((GAP, top + 8), heading, fill=INK, font=font)
        top += HEADING
        for index, (caption, image) in enumerate(tiles):
            row, column = divmod(index, columns)
            x, y = GAP + column * (TILE + GAP), top + row * (TILE + CAPTION + GAP)
            sheet.paste(_tile(image), (x, y))
            draw.text((x, y + TILE), caption, fill=SOFT, font=font)
        top += count * (TILE + CAPTION + GAP)
    return sheet


def _groups(recorded: CalibrationSet) -> Iterator[tuple[str, list[Tile]]]:
    images = recorded.images
    for role in ROLES:
        low = [
            (f"{sample.episode} {camera}", images[file])
            for sample in recorded.low_level(role)
            for camera, file in sorted(sample.images.items())
        ]
        yield f"{recorded.document.name}: low level, {role}, {len(recorded.low_level(role))} samples", low
    for role in ROLES:
        high = [(f"{sample.episode} @{sample.step}", images[sample.image]) for sample in recorded.high_level(role)]
        yield f"{recorded.document.name}: high level, {role}, {len(high)} samples", high


def _tile(image: NDArray[np.uint8]) -> Image.Image:
    """The image on a square of paper, its proportions kept; small ones are not enlarged by more than a whole factor."""
    height, width = image.shape[:2]
    scale = TILE / max(height, width)
    if scale >= 2:
        scale = int(scale)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    kind = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
    square = Image.new("RGB", (TILE, TILE), PAPER)
    square.paste(Image.fromarray(image).resize(size, kind), ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return square
