"""Recorded pictures: one file of PNGs for many frames, read picture by picture.

The simulator's pictures have few colours: a PNG of 256x256 takes 10 kB where JPEG at quality 95 takes 13 and loses
something. A file is two NumPy arrays, one after the other: int64 [n + 1], where each PNG begins and the last one ends,
and uint8 [bytes], the PNGs themselves.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memrt.runtime.errors import MemrtError

SUFFIX = ".frames"
COMPRESSION = 6  # zlib's level: a level of 9 saves another 8 % in three times the time


class Frames:
    """Pictures on disk, uint8 [n, H, W, 3], decoded when they are asked for.

    An index gives one picture, a slice gives a `Frames` of fewer pictures, an array of indices stacks those pictures.
    NumPy takes one for an array (and decodes all of it).
    """

    def __init__(self, offsets: NDArray[np.int64], encoded: NDArray[np.uint8]) -> None:
        self._offsets, self._encoded = offsets, encoded

    @staticmethod
    def open(path: Path) -> Frames:
        """Memory-map a file. Raises MemrtError when it is not one of `write_frames`."""
        try:
            with path.open("rb") as file:
                offsets = np.lib.format.read_array(file, allow_pickle=False)
                np.lib.format.read_magic(file)
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                start = file.tell()
            encoded = np.memmap(path, dtype, "r", start, shape) if shape[0] else np.empty(0, np.uint8)
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error
        return Frames(offsets, encoded)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, H, W, 3)."""
        return (len(self), *(self[0].shape if len(self) else (0, 0, 3)))

    @overload
    def __getitem__(self, which: int | np.integer[Any]) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, which: slice) -> Frames: ...
    @overload
    def __getitem__(self, which: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.uint8]: ...
    def __getitem__(self, which: Any) -> Any:
        if isinstance(which, slice):
            start, stop, step = which.indices(len(self))
            if step != 1:
                return self[np.arange(start, stop, step)]
            return Frames(self._offsets[start : max(start, stop) + 1], self._encoded)
        if isinstance(which, int | np.integer):
            return self._decode(range(len(self))[which])
        return np.stack([self[int(index)] for index in which])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[np.arange(len(self))], dtype)

    def encoded(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """(offsets [n + 1] from 0, bytes): what `write` would write."""
        first, last = self._offsets[0], self._offsets[-1]
        return self._offsets - first, self._encoded[first:last]

    def _decode(self, index: int) -> NDArray[np.uint8]:
        png = self._encoded[self._offsets[index] : self._offsets[index + 1]]
        with Image.open(io.BytesIO(png.tobytes())) as image:
            return np.asarray(image)


def png(images: Frames | NDArray[np.uint8], index: int) -> bytes:
    """One picture as PNG; of `Frames` the bytes that are there."""
    if isinstance(images, Frames):
        return images[index : index + 1].encoded()[1].tobytes()
    return _png(images[index])


def write_frames(path: Path, images: Iterable[NDArray[np.uint8]]) -> None:
    """Write pictures uint8 [H, W, 3]."""
    pngs = [np.frombuffer(_png(image), np.uint8) for image in images]
    offsets = np.cumsum([0, *map(len, pngs)], dtype=np.int64)
    _write(path, offsets, pngs)


def join_frames(path: Path, parts: Sequence[Path]) -> None:
    """Write the pictures of files one after another; whoever has `path` mapped keeps the old one."""
    opened = [Frames.open(part).encoded() for part in parts]
    starts = np.cumsum([0, *(offsets[-1] for offsets, _ in opened)], dtype=np.int64)
    moved = [offsets[:-1] + start for (offsets, _), start in zip(opened, starts, strict=False)]
    _write(path, np.concatenate([*moved, starts[-1:]]), [encoded for _, encoded in opened])


def open_frames(folder: Path, name: str) -> Frames | NDArray[np.uint8]:
    """The pictures `name` of a folder: `<name>.frames`, or an array `<name>.npy` uint8 [n, H, W, 3], memory-mapped."""
    array = folder / f"{name}.npy"
    if not array.is_file():
        return Frames.open(folder / f"{name}{SUFFIX}")
    try:
        images: NDArray[np.uint8] = np.load(array, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise _unreadable(array, error) from error
    return images


def _png(image: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=COMPRESSION)
    return file.getvalue()


def _write(path: Path, offsets: NDArray[np.int64], parts: Sequence[NDArray[np.uint8]]) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.lib.format.write_array(file, offsets, version=(1, 0))
        header = {"descr": "|u1", "fortran_order": False, "shape": (int(offsets[-1]),)}
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(part.data)
    partial.replace(path)


def _unreadable(path: Path, error: Exception) -> MemrtError:
    return MemrtError(
        f"recorded pictures {path}",
        expected="pictures as the simulator records them",
        found="no such file" if isinstance(error, FileNotFoundError) else error,
        fix="copy them again, or record them with `memrt sim record`",
    )
