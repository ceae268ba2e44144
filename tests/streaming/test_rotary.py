"""Rotations become one operator of ONNX Runtime, and the graph computes the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from memrt.export.graph_parts import rotate
from memrt.export.streaming.rotary import DOMAIN, fuse_rotations
from memrt.export.streaming.skeleton import Skeleton, trace

HEADS, DIM = 4, 16
LENGTH = torch.export.Dim("length", min=1, max=64)


class Layer(nn.Module):
    """Two tensors turned by the same table, as queries and keys are."""

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        query, key = x.split((HEADS - 1, 1), dim=1)
        return rotate(query, cos[:, None], sin[:, None]) * rotate(key, cos[:, None], sin[:, None])


class OtherSign(nn.Module):
    """Turns the other way: no rotation of ours."""

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        c, s = cos[:, None], sin[:, None]
        return torch.cat((first * c - second * s, first * c + second * s), dim=-1)


class HeadsFirst(nn.Module):
    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return rotate(x.transpose(0, 1), cos, sin)


def traced(module: nn.Module) -> Skeleton:
    example = (torch.zeros(5, HEADS, DIM), torch.zeros(5, DIM // 2), torch.zeros(5, DIM // 2))
    return trace(module, example, ("x", "cos", "sin"), ("y",), ({0: LENGTH}, {0: LENGTH}, {0: LENGTH}))


@pytest.mark.parametrize("tokens", [1, 7])
def test_rotations_are_one_operator_each(tokens: int, run_model) -> None:
    skeleton = traced(Layer())
    fused = skeleton.copy()
    assert fuse_rotations(fused) == 2
    kinds = [(node.domain, node.op_type) for node in fused.graph]
    assert kinds.count((DOMAIN, "RotaryEmbedding")) == 2
    assert {"Sub", "Concat"}.isdisjoint(kind for _, kind in kinds)
    rng = np.random.default_rng(tokens)
    angles = rng.uniform(-3, 3, (tokens, DIM // 2))
    feeds = {"x": rng.normal(size=(tokens, HEADS, DIM)), "cos": np.cos(angles), "sin": np.sin(angles)}
    feeds = {name: value.astype(np.float32) for name, value in feeds.items()}
    np.testing.assert_allclose(run_model(fused, feeds), run_model(skeleton.copy(), feeds), atol=1e-6)


@pytest.mark.parametrize("module", [OtherSign(), HeadsFirst()])
def test_what_is_no_rotation_by_token_stays(module: nn.Module) -> None:
    model = traced(module).copy()
    before = [node.name for node in model.graph]
    assert fuse_rotations(model) == 0
    assert [node.name for node in model.graph] == before
    assert DOMAIN not in model.opset_imports
