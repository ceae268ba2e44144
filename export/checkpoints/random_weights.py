"""Checkpoints that nobody trained: full size, from a seed, so that real sizes are rehearsed without real weights.

Every tensor has a generator of its own, seeded by (seed, name): a tensor can be read alone and in any order. Values
are normal quantiles of 16 random bits, rounded to bf16 as released checkpoints are: a table of 65,536 entries instead
of arithmetic, which one core fills at more than 100 million values a second.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memrt.export.checkpoints.source import Shape
from memrt.runtime.errors import MemrtError

PREFIX = "random:"
_LEVELS = 1 << 16
_CHUNK = 1 << 16  # values per step: index and result stay in the core's cache

Spread = Callable[[str, Shape], tuple[float, float]]
"""(name, shape) → (mean, standard deviation)."""


def parse_random(checkpoint: object) -> tuple[str, int] | None:
    """`random:<name>[:seed]` → name and seed (0 by default); None for anything else, a path for example."""
    text = str(checkpoint)
    if not text.startswith(PREFIX):
        return None
    name, _, seed = text.removeprefix(PREFIX).partition(":")
    if seed and not (seed.isascii() and seed.isdigit()):
        raise MemrtError(f"checkpoint {text}", expected="random:<name>[:seed]", found=seed, fix="write a whole number")
    return name, int(seed or 0)


class RandomSource:
    """A `WeightSource` without files."""

    def __init__(self, name: str, seed: int, shapes: Mapping[str, Shape], spread: Spread) -> None:
        """`name` is what follows `random:`; `spread` is the family's initialisation."""
        self.label = f"random:{name}" if seed == 0 else f"random:{name}:{seed}"
        self._name, self._seed, self._shapes, self._spread = name, seed, dict(shapes), spread

    def names(self) -> tuple[str, ...]:
        """Sorted."""
        return tuple(sorted(self._shapes))

    def shape(self, name: str) -> Shape:
        """As the configuration says."""
        return self._shapes[name]

    def read(self, name: str) -> Tensor:
        """One bf16 tensor; the same seed and name give the same bits."""
        mean, deviation = self._spread(name, self._shapes[name])
        return random_tensor(self._seed, name, self._shapes[name], mean, deviation)

    def fingerprint(self) -> dict[str, str]:
        """Name and seed."""
        return {"random": self._name, "seed": str(self._seed)}


def random_tensor(seed: int, name: str, shape: Shape, mean: float, deviation: float) -> Tensor:
    """A normal bf16 tensor from a generator of its own; no value is further than 4.3 deviations from the mean."""
    entropy = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16], "little")
    bits = np.random.SFC64(entropy)
    table = _table(mean, deviation)
    size = math.prod(shape)
    values = np.empty(size, dtype=np.int16)
    for start in range(0, size, _CHUNK):
        part = values[start : start + _CHUNK]
        index = bits.random_raw(-(-len(part) // 4)).view(np.uint16)[: len(part)]
        np.take(table, index, out=part, mode="clip")  # any 16 bits are a valid index; "clip" only skips the check
    return torch.from_numpy(values).view(torch.bfloat16).reshape(shape)


@lru_cache(maxsize=64)
def _table(mean: float, deviation: float) -> NDArray[np.int16]:
    """The bf16 bits of the normal distribution's quantiles (i + 1/2) / 65,536."""
    table: NDArray[np.int16] = (_quantiles() * deviation + mean).to(torch.bfloat16).view(torch.int16).numpy()
    return table


@lru_cache(maxsize=1)
def _quantiles() -> Tensor:
    quantiles: Tensor = torch.special.ndtri((torch.arange(_LEVELS, dtype=torch.float64) + 0.5) / _LEVELS)
    return quantiles
