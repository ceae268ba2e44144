"""Frames of an MP4, as LeRobot keeps its pictures: decoded one after another, never all in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from memrt.runtime.errors import MemrtError


def frames(path: Path, fps: float, from_s: float, wanted: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    """Of the pictures from `from_s` on, those with the numbers `wanted`, ascending: uint8 [height, width, 3].

    Raises MemrtError for a file that cannot be decoded, or ends before.
    """
    # Half a frame earlier: which of two frames a rounded time means is then no question.
    options = ["-ss", f"{from_s - 0.5 / fps:.6f}"] if from_s > 0.5 / fps else []
    left = list(wanted)
    try:
        # Every frame as it is, none repeated or dropped to keep a rate.
        reader = imageio_ffmpeg.read_frames(path, input_params=options, output_params=["-fps_mode", "passthrough"])
        width, height = next(reader)["size"]
        for number, data in enumerate(reader):
            if not left:
                break
            if number == left[0]:
                yield np.frombuffer(data, np.uint8).reshape(height, width, 3)
                del left[0]
        reader.close()
    except (OSError, StopIteration, RuntimeError) as error:
        raise _unreadable(path, str(error).strip().splitlines()[-1:] or [type(error).__name__]) from error
    if left:
        raise _unreadable(path, [f"it ends before picture {left[0]} from {from_s:g} s on"])


def _unreadable(path: Path, found: Sequence[str]) -> MemrtError:
    return MemrtError(
        f"video {path}",
        expected="a video of every frame of its episodes",
        found=found[0],
        fix="download it again, or leave the episode out",
    )
