"""Muon: momentum whose direction is orthogonalised, for the weight matrices of small transformers.

K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; updates scaled to AdamW's root
mean square (J. Liu et al., "Muon is scalable for LLM training", 2025), so that both share one learning rate. Everything
stays in float32 and matrices of one shape are orthogonalised together: on a CPU that costs a tenth of a training step,
where a matrix at a time in bfloat16 costs half of one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan et al.: steep at zero, singular values end within 0.7 … 1.2
ITERATIONS = 5
ADAMW_RMS = 0.2  # Liu et al.: the usual root mean square of an AdamW update
_BLOCK = re.compile(r"\.(layers|blocks)\.\d+\.")
_NO_HIDDEN_MAP = ("lora_", ".dense.")  # LoRA's thin factors; adaRMS rows, which modulate


def is_block_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a weight matrix of a transformer block, which Muon is made for."""
    return parameter.ndim == 2 and bool(_BLOCK.search(name)) and not any(part in name for part in _NO_HIDDEN_MAP)


def moments_of(optimisers: Sequence[torch.optim.Optimizer], parameter: nn.Parameter) -> dict[str, Tensor]:
    """What the optimiser that owns the parameter keeps about it; what is put in is kept too."""
    for optimiser in optimisers:
        if any(parameter is owned for group in optimiser.param_groups for owned in group["params"]):
            kept: dict[str, Tensor] = optimiser.state[parameter]
            return kept
    raise KeyError("the parameter is not trained")


def orthogonalise(matrices: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """Matrices [n, rows, columns] → nearly orthogonal ones with the same singular vectors (Newton-Schulz)."""
    a, b, c = QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(iterations):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, with decoupled weight decay; every parameter must be a matrix."""

    def __init__(
        self, matrices: Iterable[nn.Parameter], lr: float, *, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(list(matrices), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for shape, parameters in by_shape.items():
                self._update(parameters, max(shape), group)

    def _update(self, parameters: list[nn.Parameter], longest: int, group: dict[str, Any]) -> None:
        gradients = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            if "momentum" not in self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        momenta = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1.0 - group["momentum"])
        looking_ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])
        updates = orthogonalise(torch.stack(looking_ahead)).unbind(0)
        torch._foreach_mul_(parameters, 1.0 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, updates, alpha=-group["lr"] * ADAMW_RMS * longest**0.5)
