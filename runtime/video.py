"""Writes an MP4 of a run: the front camera, with what the policy was told and what it remembers written below it."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Generator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from memrt.runtime.errors import MemrtError
from memrt.runtime.memory.coordinates import CoordinateOrder, find_coordinates
from memrt.runtime.types import ImageArray

FPS = 20
PICTURE = 640  # the camera's square image is scaled to this many pixels
STRIP = 192  # height of the text below it
FONT_PIXELS = 17
LINE_PIXELS = 21
COLUMNS = 76  # characters that fit beside each other
MOST_LINES = 8
MARK = 9  # half the size of the cross that marks a grounded subgoal


class VideoWriter:
    """Pipes frames to ffmpeg; a context manager. Raises MemrtError where ffmpeg or the folder is missing."""

    def __init__(self, path: Path, order: CoordinateOrder = "row_column") -> None:
        try:
            import imageio_ffmpeg
        except ModuleNotFoundError as error:
            raise MemrtError(
                "writing a video",
                expected="the package imageio-ffmpeg",
                found="an installation without it",
                fix="pip install 'memrt[sim]'",
            ) from error
        if not path.absolute().parent.is_dir() or path.suffix != ".mp4":
            raise MemrtError(
                f"video {path}",
                expected="a file name ending in .mp4, in a folder that exists",
                found=f"`{path.name}` in {path.absolute().parent}",
                fix="correct --video, or create the folder",
            )
        self._order = order
        self.failure = ""
        self._font = ImageFont.load_default(FONT_PIXELS)
        self._frames: Generator[None, ImageArray, None] = imageio_ffmpeg.write_frames(
            str(path), (PICTURE, PICTURE + STRIP), fps=FPS, quality=6, macro_block_size=16, ffmpeg_log_level="error"
        )
        next(self._frames)

    def add(self, image: ImageArray, texts: Sequence[tuple[str, str]]) -> None:
        """Append one frame: uint8 [height, width, 3] and (name, text) lines below. Blocks while ffmpeg is behind.

        When ffmpeg fails, a full disk above all, recording ends and `failure` says so; the run goes on.
        """
        if self.failure:
            return
        try:
            self._frames.send(compose(image, texts, self._font, self._order))
        except (OSError, StopIteration) as error:
            self.failure = f"the video ends early: {error or 'ffmpeg has stopped'}"

    def close(self) -> None:
        """Finish the file."""
        with contextlib.suppress(OSError):  # its failure, if any, was noted when a frame could not be written
            self._frames.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def compose(
    image: ImageArray,
    texts: Sequence[tuple[str, str]],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    order: CoordinateOrder = "row_column",
) -> ImageArray:
    """One frame of the video, uint8 [832, 640, 3]; coordinates in a text named "subgoal" get a cross."""
    canvas = Image.new("RGB", (PICTURE, PICTURE + STRIP), (16, 18, 24))
    canvas.paste(Image.fromarray(image).resize((PICTURE, PICTURE), Image.Resampling.BILINEAR))
    draw = ImageDraw.Draw(canvas)
    y, lines_left = PICTURE + 8, MOST_LINES
    for name, text in texts:
        if name == "subgoal":
            _mark(draw, text, order, PICTURE / image.shape[0])
        for line in textwrap.wrap(f"{name}: {text}", COLUMNS)[:lines_left]:
            draw.text((10, y), line, font=font, fill=(120, 220, 255) if name == "subgoal" else (225, 225, 225))
            y += LINE_PIXELS
            lines_left -= 1
    return np.asarray(canvas)


def _mark(draw: ImageDraw.ImageDraw, text: str, order: CoordinateOrder, scale: float) -> None:
    for at in find_coordinates(text, order):
        x, y = at.column * scale, at.row * scale
        draw.line((x - MARK, y, x + MARK, y), fill=(255, 255, 0), width=3)
        draw.line((x, y - MARK, x, y + MARK), fill=(255, 255, 0), width=3)
