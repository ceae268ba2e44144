"""`random:r16`: a LoRA adapter that nobody trained, of any rank, for the language model of a VLM."""

from __future__ import annotations

import math
import re

from torch import Tensor

from memrt.export.checkpoints.random_weights import parse_random, random_tensor
from memrt.export.checkpoints.source import Shape, WeightSource
from memrt.runtime.errors import MemrtError

ALPHA_PER_RANK = 2  # alpha 32 at rank 16, as the compressed-memory policies were trained (SPECS 1.1)
RELATIVE_CHANGE = 0.05  # of the merged weights, root mean square: what fine-tuning does, in order of magnitude
_WEIGHT_DEVIATION = 0.02
_TARGET = re.compile(r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)\.weight")


class RandomAdapter:
    """Seeded pairs for q, k, v, o, gate, up and down of every layer of the language model."""

    def __init__(self, rank: int, seed: int, base: WeightSource) -> None:
        """The sizes are the base's."""
        self.label = f"random:r{rank}" if seed == 0 else f"random:r{rank}:{seed}"
        self._rank, self._seed = rank, seed
        self._sizes = {
            name.removesuffix(".weight"): base.shape(name) for name in base.names() if _TARGET.fullmatch(name)
        }

    def modules(self) -> tuple[str, ...]:
        """Under canonical names."""
        return tuple(sorted(self._sizes))

    def size(self, module: str) -> Shape:
        """The base's."""
        return self._sizes[module]

    def pair(self, module: str) -> tuple[Tensor, Tensor]:
        """bf16 A [rank, inputs] and B [outputs, rank]."""
        outputs, inputs = self._sizes[module]
        down, up = inputs**-0.5, RELATIVE_CHANGE * _WEIGHT_DEVIATION * math.sqrt(inputs / self._rank) / ALPHA_PER_RANK
        return (
            random_tensor(self._seed, f"{module}.lora_A", (self._rank, inputs), 0.0, down),
            random_tensor(self._seed, f"{module}.lora_B", (outputs, self._rank), 0.0, up),
        )

    def scale(self, module: str) -> float:
        """alpha / rank."""
        return float(ALPHA_PER_RANK)

    def fingerprint(self) -> dict[str, str]:
        """Rank and seed."""
        return {"random": f"r{self._rank}", "seed": str(self._seed)}


def open_random_adapter(adapter: object, base: WeightSource) -> RandomAdapter | None:
    """The adapter of `random:r<rank>[:seed]`; None when `adapter` is a path. Raises MemrtError for other names."""
    parsed = parse_random(adapter)
    if parsed is None:
        return None
    rank = re.fullmatch(r"r([1-9]\d{0,3})", parsed[0])
    if rank is None:
        raise MemrtError(
            f"adapter {adapter}", expected="random:r<rank>[:seed]", found=parsed[0], fix="write random:r16"
        )
    return RandomAdapter(int(rank[1]), parsed[1], base)
