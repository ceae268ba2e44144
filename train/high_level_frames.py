"""Recorded front images behind one index, and what a frozen vision tower makes of them, kept on disk."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memrt.sim.frames import Frames, open_frames
from memrt.train.high_level_forward import TrainingForward, VisionFeatures

_BATCH = 16  # frames through the tower at once
_OPEN_FILES = 128  # memory maps kept open


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of the recorded pictures `pictures` of `folder`; `name` is that of its cache."""

    name: str
    folder: Path
    pictures: str
    rows: Sequence[int]


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """The frames of some blocks, numbered through."""

    blocks: tuple[Block, ...]
    starts: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", tuple(accumulate((len(block.rows) for block in self.blocks), initial=0)))

    def __len__(self) -> int:
        return self.starts[-1]

    def locate(self, index: int) -> tuple[int, int]:
        """Which block, and which row of it."""
        block = bisect_right(self.starts, index) - 1
        return block, index - self.starts[block]

    def images(self, indices: Iterable[int]) -> Tensor:
        """uint8 [n, 256, 256, 3]."""
        rows = []
        for index in indices:
            number, row = self.locate(int(index))
            block = self.blocks[number]
            rows.append(_pictures(block.folder, block.pictures)[block.rows[row]])
        return torch.from_numpy(np.stack(rows))


class Features:
    """Vision features of `frames`: fp16 [frames of a block, 1 + deepstack layers, 64, width], a file per block.

    Merged tokens first, then the deepstack features. A block is computed when first asked for. Files lie below the
    digest of the tower's weights, so several trainings over one tower share them and none takes another's.
    """

    def __init__(self, forward: TrainingForward, frames: FrameIndex, folder: Path) -> None:
        self._forward, self._frames = forward, frames
        digest = hashlib.sha256()
        for parameter in forward.model.model.visual.parameters():
            digest.update(parameter.detach().cpu().numpy().tobytes())
        self._folder = folder / digest.hexdigest()[:16]

    def select(self, indices: NDArray[np.int64] | Sequence[int]) -> VisionFeatures:
        """fp32 features of some frames."""
        rows = []
        for index in indices:
            block, row = self._frames.locate(int(index))
            rows.append(_array(self._file(block))[row])
        tokens, *deepstack = torch.from_numpy(np.stack(rows)).float().unbind(1)
        return VisionFeatures(tokens, tuple(deepstack))

    def _file(self, number: int) -> Path:
        block = self._frames.blocks[number]
        path = self._folder / f"{block.name}-{len(block.rows)}.npy"
        if not path.exists():
            first = self._frames.starts[number]
            parts = []
            with torch.no_grad():
                for start in range(first, first + len(block.rows), _BATCH):
                    images = self._frames.images(range(start, min(start + _BATCH, first + len(block.rows))))
                    vision = self._forward.vision(images)
                    parts.append(torch.stack([vision.tokens, *vision.deepstack], dim=1).half().cpu())
            path.parent.mkdir(parents=True, exist_ok=True)
            growing = path.with_suffix(".part.npy")
            np.save(growing, torch.cat(parts).numpy())
            growing.replace(path)
        return path


@lru_cache(maxsize=_OPEN_FILES)
def _pictures(folder: Path, name: str) -> Frames | NDArray[np.uint8]:
    return open_frames(folder, name)


@lru_cache(maxsize=_OPEN_FILES)
def _array(path: Path) -> NDArray[np.float16]:
    mapped: NDArray[np.float16] = np.load(path, mmap_mode="r")
    return mapped
