"""Modules that the exported graphs of both policies are built of.

Projections that read the same input are joined, and weights lie as [in, out], so that each projection is one MatMul
with a constant: what quantisers look for. No constructor reads a weight's value, so that all of them also accept fake
tensors: a graph can be exported before its weights are there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def constant(tensor: Tensor) -> nn.Buffer:
    """An fp32 copy of `tensor`, contiguous, as an entry of the state_dict; one allocation, none if `tensor` is fake."""
    return nn.Buffer(tensor.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format))


def joined(tensors: list[Tensor]) -> Tensor:
    """`tensors` concatenated along their first axis; a single one is not copied."""
    return tensors[0].detach() if len(tensors) == 1 else torch.cat([tensor.detach() for tensor in tensors])


class Affine(nn.Module):
    """x @ weight + bias, from one or several joined linear layers; an embedding counts as one without bias."""

    def __init__(self, *layers: nn.Linear | nn.Embedding) -> None:
        super().__init__()
        biases = [bias for bias in (getattr(layer, "bias", None) for layer in layers) if bias is not None]
        if len(biases) not in (0, len(layers)):
            raise ValueError("layers with and without bias cannot be joined")
        self.weight = constant(joined([layer.weight for layer in layers]).T)
        self.bias = constant(joined(biases)) if biases else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self._eps = constant(norm.weight), constant(norm.bias), norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self._eps)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of every query [..., n, dim] over all keys [..., n, dim]."""
    weights = (query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)).softmax(-1)
    return weights @ value


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on the last axis, whose halves are the pairs; `cos`, `sin` have half its width.

    Spelled the way `streaming.rotary` finds it.
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
