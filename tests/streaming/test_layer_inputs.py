"""Stacked inputs become one per layer, and the graph computes the same."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from memrt.export.streaming.layer_inputs import split_layer_inputs
from memrt.export.streaming.skeleton import trace

LAYERS, LENGTH = 3, 5


class Rows(nn.Module):
    """Reads each row of `keys` once; `table` in ways that no layer does."""

    def forward(self, x: Tensor, keys: Tensor, table: Tensor) -> Tensor:
        for layer in range(LAYERS):
            x = x * keys[layer] + table[layer]
        return x + table.sum(0)


class Ends(nn.Module):
    def forward(self, x: Tensor, keys: Tensor) -> Tensor:
        return x + keys[0] + keys[-1]  # the row between is not read


def test_rows_become_inputs_and_nothing_else_changes(run_model) -> None:
    length = torch.export.Dim("length", min=1, max=64)
    example = (torch.zeros(LENGTH), torch.zeros(LAYERS, LENGTH), torch.zeros(LAYERS, LENGTH))
    shapes = ({0: length}, {1: length}, {1: length})
    traced = trace(Rows(), example, ("x", "keys", "table"), ("y",), shapes)
    split = traced.copy()
    assert split_layer_inputs(split) == {"keys": LAYERS}
    assert [value.name for value in split.graph.inputs] == ["x", "keys.0", "keys.1", "keys.2", "table"]
    rng = np.random.default_rng(0)
    feeds = {"x": rng.normal(size=7), "keys": rng.normal(size=(LAYERS, 7)), "table": rng.normal(size=(LAYERS, 7))}
    feeds = {name: value.astype(np.float32) for name, value in feeds.items()}
    np.testing.assert_array_equal(run_model(split, feeds), run_model(traced.copy(), feeds))


def test_an_input_that_is_not_read_whole_stays() -> None:
    traced = trace(Ends(), (torch.zeros(LENGTH), torch.zeros(LAYERS, LENGTH)), ("x", "keys"), ("y",)).copy()
    assert split_layer_inputs(traced) == {}
    assert [value.name for value in traced.graph.inputs] == ["x", "keys"]
