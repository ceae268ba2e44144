"""Layers that the VLM families share. They take their weights from transformers' modules and hold nothing else.

Projections that read the same input are joined, and weights lie as [in, out], so that each projection is one MatMul
with a constant: what quantisers look for. No constructor reads a weight's value, so that all of them also accept fake
tensors: a graph can be exported before its weights are there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from memrt.export.graph_parts import Affine, LayerNorm, attend, constant, joined, rotate

__all__ = ["Affine", "LayerNorm", "RmsNorm", "attend", "constant", "joined", "rotate"]


class RmsNorm(nn.Module):
    """Root-mean-square normalisation over the last axis, spelled the way ONNX Runtime fuses it."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight, self._eps = constant(norm.weight), float(norm.variance_epsilon)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`."""
        return x / torch.sqrt(x.square().mean(-1, keepdim=True) + self._eps) * self.weight
