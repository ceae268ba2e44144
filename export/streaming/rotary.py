"""Rotary positions as ONNX Runtime's own operator: one pass over the queries in place of nine.

TensorRT fuses such arithmetic by itself, ONNX Runtime's CPU provider does not. What `graph_parts.rotate` becomes is
found by its shape alone: concat(a·cos − b·sin, b·cos + a·sin), where a and b are the halves of one tensor [tokens,
heads, head_dim].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

DOMAIN = (
    "com.microsoft"  # its RotaryEmbedding is older than ONNX's (opset 23), and at home in every ONNX Runtime in use
)


@dataclass(frozen=True, slots=True)
class _Rotation:
    """`x` [tokens, heads, head_dim], `cos` and `sin` [tokens, 1, head_dim / 2]; `nodes` compute the rotated x."""

    x: ir.Value
    cos: ir.Value
    sin: ir.Value
    nodes: tuple[ir.Node, ...]  # each before those it reads from


def fuse_rotations(model: ir.Model) -> int:
    """Replace every rotation; returns how many there were."""
    made: dict[tuple[str, tuple[int, ...]], ir.Value] = {}
    found = [(node, rotation) for node in model.graph if (rotation := _rotation(node)) is not None]
    for node, rotation in found:
        _replace(model.graph, node, rotation, made)
    if found:
        model.opset_imports[DOMAIN] = 1
    return len(found)


def _rotation(concat: ir.Node) -> _Rotation | None:
    """What `concat` puts together, if it is a rotation's last node."""
    nodes = _arithmetic(concat)
    if nodes is None:
        return None
    (a, cos), (b, sin), *others = (tuple(node.inputs) for node in nodes[3:])
    if others != [(b, cos), (a, sin)] or a is None or b is None or cos is None or sin is None:
        return None
    split = a.producer()
    if split is None or split.op_type != "Split" or list(split.outputs) != [a, b] or split.inputs[0] is None:
        return None
    x = split.inputs[0]
    fits = _is_static(x.shape) and all(_is_static(table.shape) and table.shape[1] == 1 for table in (cos, sin))  # type: ignore[index]
    return _Rotation(x, cos, sin, (*nodes, split)) if fits else None


def _arithmetic(concat: ir.Node) -> tuple[ir.Node, ...] | None:
    """Concat, Sub and Add, and their four products, of a node that joins a difference and a sum of products."""
    halves = _operands(concat, "Concat")
    if halves is None:
        return None
    subtracted, added = _operands(halves[0], "Sub"), _operands(halves[1], "Add")
    if subtracted is None or added is None:
        return None
    products = (*subtracted, *added)
    return (concat, *halves, *products) if all(node.op_type == "Mul" for node in products) else None


def _operands(node: ir.Node, kind: str) -> tuple[ir.Node, ir.Node] | None:
    """The nodes that made both inputs of a node of this kind."""
    if node.op_type != kind or len(node.inputs) != 2:
        return None
    makers = [None if value is None else value.producer() for value in node.inputs]
    return (makers[0], makers[1]) if makers[0] is not None and makers[1] is not None else None


def _is_static(shape: ir.Shape | None) -> bool:
    """[tokens, heads, width] of which tokens may vary."""
    return shape is not None and len(shape) == 3 and all(isinstance(size, int) for size in shape[1:])


def _replace(
    graph: ir.Graph, concat: ir.Node, rotation: _Rotation, made: dict[tuple[str, tuple[int, ...]], ir.Value]
) -> None:
    assert rotation.x.shape is not None
    heads, width = int(rotation.x.shape[1]), int(rotation.x.shape[2])  # type: ignore[arg-type]  # static, see above
    name = (concat.name or "").replace("/Concat", "/RotaryEmbedding")

    def reshaped(value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        key = (str(value.name), shape)
        if key not in made:
            sizes = _constant(graph, f"rotation/shape/{'x'.join(map(str, shape))}", shape)
            node = ir.node("Reshape", [value, sizes], name=f"{value.name}/rotation/Reshape")
            node.outputs[0].name, node.outputs[0].type = f"{value.name}/rotation/{len(made)}", value.type
            graph.insert_before(concat, node)
            made[key] = node.outputs[0]
        return made[key]

    inputs = [
        reshaped(rotation.x, (1, -1, heads * width)),
        _constant(graph, "rotation/first_position", (0,)),  # tables have one row per token, in order
        reshaped(rotation.cos, (-1, width // 2)),
        reshaped(rotation.sin, (-1, width // 2)),
    ]
    rotated = ir.node("RotaryEmbedding", inputs, {"num_heads": heads}, domain=DOMAIN, name=name)
    rotated.outputs[0].name, rotated.outputs[0].type = f"{concat.outputs[0].name}/rotated", rotation.x.type
    graph.insert_before(concat, rotated)
    result = reshaped(rotated.outputs[0], (-1, heads, width))
    result.shape = concat.outputs[0].shape
    concat.outputs[0].replace_all_uses_with(result)
    for node in rotation.nodes:
        if not any(value.uses() for value in node.outputs):
            graph.remove(node, safe=True)


def _constant(graph: ir.Graph, name: str, values: tuple[int, ...]) -> ir.Value:
    if name not in graph.initializers:
        tensor = ir.tensor(np.asarray(values, np.int64), name=name)
        value = ir.Value(name=name, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape((len(values),)))
        value.const_value = tensor
        graph.initializers[name] = value
    return graph.initializers[name]
