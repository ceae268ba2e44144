"""Inputs that stack one tensor per layer, taken apart: ONNX Runtime copies whatever a graph cuts out of a tensor.

A 4B decoder's keys and values are 226 MB; cutting them layer by layer costs that once more for every token. With an
input per layer (`keys.0`, `keys.1`, …) each layer reads the caller's memory. `OnnxRuntimeEngine` still takes `keys`.
"""

from __future__ import annotations

import onnx_ir as ir


def split_layer_inputs(model: ir.Model) -> dict[str, int]:
    """Replace every input that is only read one row at a time; returns how many rows each of them had."""
    found = {}
    for value in list(model.graph.inputs):
        rows = _rows(value)
        if len(rows) > 1:
            _split(model.graph, value, rows)
            found[str(value.name)] = len(rows)
    return found


def _rows(value: ir.Value) -> list[ir.Value]:
    """What the graph cuts out of `value`, in order; empty if it is read in any other way or not all of it."""
    if value.shape is None or not isinstance(value.shape[0], int):
        return []
    cut: dict[int, ir.Value] = {}
    for use in value.uses():
        index = _index(use.node) if use.idx == 0 else None
        if index is None or index in cut:
            return []
        cut[index] = use.node.outputs[0]
    return [cut[index] for index in sorted(cut)] if sorted(cut) == list(range(value.shape[0])) else []


def _index(node: ir.Node) -> int | None:
    """Which row a Gather takes, if it is one."""
    axis = node.attributes.get("axis")
    if node.op_type != "Gather" or (axis is not None and axis.as_int() != 0):
        return None
    index = node.inputs[1]
    constant = None if index is None else ir.convenience.get_const_tensor(index)
    return int(constant.numpy()) if constant is not None and constant.numpy().shape == () else None


def _split(graph: ir.Graph, value: ir.Value, rows: list[ir.Value]) -> None:
    assert value.shape is not None
    place = graph.inputs.index(value)
    for number, row in enumerate(rows):
        own = ir.Value(name=f"{value.name}.{number}", type=value.type, shape=ir.Shape(value.shape[1:]))
        graph.inputs.insert(place + number, own)
        cut = row.producer()
        assert cut is not None
        row.replace_all_uses_with(own)
        graph.remove(cut, safe=True)
    graph.inputs.remove(value)
