"""A folder of images as a camera, paced by its time stamps.

Images (.png, .jpg) are played in the order of their names. `timestamps.txt`, where there is one, has a line per image:
nanoseconds, rising, of any clock. Without it images come at the configured rate.
"""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from memrt.robot_io.cameras.settings import CameraConfig
from memrt.robot_io.cameras.source import CameraEnded, Picture, check_size
from memrt.runtime.clock import NS_PER_S
from memrt.runtime.errors import MemrtError

SUFFIXES = {".png", ".jpg", ".jpeg"}
TIMESTAMPS = "timestamps.txt"


class ReplaySource:
    """One run through the folder; the first image is taken at the first read."""

    def __init__(self, name: str, config: CameraConfig) -> None:
        self._name, self._config = name, config
        folder = Path(config.path or "").expanduser()
        self._images = _images(name, folder)
        self._offsets_ns = _offsets(name, folder, len(self._images), config.fps)
        self._start_ns: int | None = None
        self._next = 0

    def read(self, timeout_s: float) -> Picture | None:
        """The next image at its time. Raises CameraEnded after the last, MemrtError for what is no image."""
        if self._next == len(self._images):
            raise CameraEnded
        now_ns = time.monotonic_ns()
        if self._start_ns is None:
            self._start_ns = now_ns
        due_ns = self._start_ns + self._offsets_ns[self._next]
        wait_s = (due_ns - now_ns) / NS_PER_S
        if wait_s > timeout_s:
            time.sleep(timeout_s)
            return None
        image = self._load(self._images[self._next])
        time.sleep(max(0.0, (due_ns - time.monotonic_ns()) / NS_PER_S))
        self._next += 1
        return Picture(image, due_ns, self._next)

    def close(self) -> None:
        """Nothing is held."""

    def _load(self, path: Path) -> np.ndarray:
        try:
            with Image.open(path) as opened:
                image = np.asarray(opened.convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise MemrtError(
                f"camera `{self._name}`", expected="an image", found=error, fix=f"remove or replace {path}"
            ) from error
        check_size(self._name, self._config, image)
        return image


def _images(name: str, folder: Path) -> list[Path]:
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise MemrtError(
            f"camera `{name}`",
            expected="a folder with .png or .jpg images",
            found=f"{folder} without any" if folder.is_dir() else f"no folder {folder}",
            fix="correct `path`",
        )
    return found


def _offsets(name: str, folder: Path, images: int, fps: int) -> list[int]:
    """When each image is due, in nanoseconds after the first."""
    path = folder / TIMESTAMPS
    if not path.exists():
        return [index * NS_PER_S // fps for index in range(images)]
    try:
        stamps = [int(line) for line in path.read_text(encoding="utf-8").split()]
    except (OSError, ValueError) as error:
        raise _bad_stamps(name, path, error) from error
    if len(stamps) != images:
        raise _bad_stamps(name, path, f"{len(stamps)} for {images} images")
    if any(later <= earlier for earlier, later in pairwise(stamps)):
        raise _bad_stamps(name, path, "some that do not rise")
    return [stamp - stamps[0] for stamp in stamps]


def _bad_stamps(name: str, path: Path, found: object) -> MemrtError:
    return MemrtError(
        f"camera `{name}`",
        expected=f"in {path} one rising whole number of nanoseconds per image",
        found=found,
        fix="write it again, or remove it to play at `fps`",
    )
