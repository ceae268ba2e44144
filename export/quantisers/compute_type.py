"""Mixed precision for a graph skeleton: matrix products in fp16 or bf16, all that must stay precise in fp32.

Products (MatMul, Gemm, Conv, Attention) compute in the chosen type, everything arithmetic between them (norms, softmax,
rotary positions, activation functions, the residual stream) in fp32, and operators that only move data (Reshape, Slice,
Concat) in the type of what they move. Casts stand where a value is made in one type and read in another, once per
value. Engines fuse those casts into the products' neighbours; what they must not do, and cannot when the graph says
fp32, is to accumulate a residual stream or a softmax in 16 bits.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import ml_dtypes
import numpy as np
import onnx_ir as ir

from memrt.export.quantisers.packed import Compute
from memrt.runtime.errors import MemrtError

DATA_TYPES: dict[Compute, ir.DataType] = {
    "fp32": ir.DataType.FLOAT,
    "fp16": ir.DataType.FLOAT16,
    "bf16": ir.DataType.BFLOAT16,
}
PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "Attention"})
# Operators that move values without computing, and which of their inputs they move (None: all).
MOVES: dict[str, tuple[int, ...] | None] = {
    "Concat": None,
    "Expand": (0,),
    "Flatten": (0,),
    "Gather": (0,),
    "GatherElements": (0,),
    "GatherND": (0,),
    "Identity": (0,),
    "Pad": (0, 2),
    "Reshape": (0,),
    "ScatterElements": (0, 2),
    "ScatterND": (0, 2),
    "Slice": (0,),
    "Split": (0,),
    "Squeeze": (0,),
    "TensorScatter": (0, 1),
    "Tile": (0,),
    "Transpose": (0,),
    "Unsqueeze": (0,),
    "Where": (1, 2),
}
FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


def to_compute_type(
    model: ir.Model,
    compute: Compute,
    *,
    keep_fp32: Sequence[str] = (),
    also_compute: Sequence[str] = (),
    cache: Sequence[str] = (),
    cache_type: Compute = "fp32",
) -> list[str]:
    """Rewrite an fp32 `model` in place; returns the initialisers whose type changed, in the graph's order.

    `keep_fp32` and `also_compute` are patterns over node names, and for products over their weight's name too: the
    former keep products in fp32 (they win), the latter give other operators the compute type, for instance the
    additions of the residual stream. Graph inputs and outputs keep their types, but those that match a pattern in
    `cache` (the names of K/V tensors) become `cache_type`.

    Initialisers that hold data are converted; the bytes of those that hold none must come in the new type. Every
    other constant stays fp32 and is cast where a product reads it.
    """
    graph, target = model.graph, DATA_TYPES[compute]
    _check_types(graph)
    for value in graph.inputs:
        if value.dtype in FLOATS and _matches(value.name, cache):
            value.type = ir.TensorType(DATA_TYPES[cache_type])
    caster = _Caster(graph)
    changed: list[str] = []
    for node in list(graph):
        kind = _type_of(node, target, keep_fp32, also_compute)
        if kind is None:
            continue
        for index in _data_inputs(node):
            source = node.inputs[index]
            if source is None or source.dtype not in FLOATS or source.dtype == kind:
                continue
            if node.op_type in PRODUCTS and _convertible(source, kind):
                changed.append(str(source.name))
            else:
                node.replace_input_with(index, caster.cast(source, kind))
        for output in node.outputs:
            if output.dtype in FLOATS or output.dtype is None:
                output.type = ir.TensorType(kind)
    for index, value in enumerate(graph.outputs):
        wanted = DATA_TYPES[cache_type] if _matches(value.name, cache) else ir.DataType.FLOAT
        if value.dtype in FLOATS and value.dtype != wanted:
            graph.outputs[index] = caster.output(value, wanted)
    return changed


def _matches(name: str | None, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name or "", pattern) for pattern in patterns)


def _check_types(graph: ir.Graph) -> None:
    untyped = [value.name for node in graph for value in node.outputs if value.dtype is None and value.uses()]
    if untyped:
        raise MemrtError(
            "the graph has values without a type",
            expected="a type on every value, as torch's exporter writes them",
            found=f"{len(untyped)} without, the first {untyped[0]}",
            fix="run onnx_ir's shape inference over the graph first",
        )


def _type_of(
    node: ir.Node, target: ir.DataType, keep_fp32: Sequence[str], also_compute: Sequence[str]
) -> ir.DataType | None:
    """The float type `node` runs in; None for operators without float results (shapes, comparisons, casts)."""
    if node.op_type == "Cast":
        return None
    if not any(value.dtype in FLOATS for value in node.outputs):
        # A comparison of floats still needs its operands in one type.
        floats = [v for v in node.inputs if v is not None and v.dtype in FLOATS]
        return ir.DataType.FLOAT if len(floats) > 1 else None
    names = [node.name or ""]
    if node.op_type in PRODUCTS:
        names += [v.name or "" for v in node.inputs if v is not None and v.is_initializer()]
    if any(_matches(name, keep_fp32) for name in names):
        return ir.DataType.FLOAT
    if node.op_type in PRODUCTS or any(_matches(name, also_compute) for name in names):
        return target
    if node.op_type in MOVES:
        moved = [node.inputs[i] for i in _data_inputs(node)]
        kinds = [v.dtype for v in moved if v is not None and v.dtype in FLOATS]
        return next((k for k in kinds if k != ir.DataType.FLOAT), ir.DataType.FLOAT)
    return ir.DataType.FLOAT


def _data_inputs(node: ir.Node) -> list[int]:
    chosen = MOVES.get(node.op_type)
    return [i for i in (range(len(node.inputs)) if chosen is None else chosen) if i < len(node.inputs)]


def _convertible(value: ir.Value, kind: ir.DataType) -> bool:
    """Give an initialiser that only products of `kind` read that type; False where it must be cast instead."""
    if not value.is_initializer() or value.is_graph_input():
        return False
    if any(use.node.op_type not in PRODUCTS for use in value.uses()):
        return False
    value.type = ir.TensorType(kind)  # a new one: values may share theirs
    if value.const_value is not None:
        if _has_data(value.const_value):
            numpy_type = ml_dtypes.bfloat16 if kind == ir.DataType.BFLOAT16 else kind.numpy()
            array = np.asarray(value.const_value.numpy()).astype(numpy_type)
            value.const_value = ir.tensor(array, dtype=kind, name=value.name)
        else:
            value.const_value = None
    return True


def _has_data(tensor: ir.TensorProtocol) -> bool:
    """False for the stand-ins that torch's exporter makes of fake and meta tensors."""
    import torch
    from torch._subclasses import FakeTensor

    raw = getattr(tensor, "raw", None)
    return not (isinstance(raw, FakeTensor) or (isinstance(raw, torch.Tensor) and raw.is_meta))


class _Caster:
    """Casts, at most one per value and type."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._made: dict[tuple[int, ir.DataType], ir.Value] = {}

    def cast(self, value: ir.Value, kind: ir.DataType) -> ir.Value:
        """`value` in `kind`, right behind its producer."""
        key = (id(value), kind)
        if key not in self._made:
            node = self._node(value, kind, f"{value.name}/{kind.name.lower()}")
            producer = value.producer()
            if producer is not None:
                self._graph.insert_after(producer, node)
            else:
                self._graph.insert_before(self._graph[0], node)
            self._made[key] = node.outputs[0]
        return self._made[key]

    def output(self, value: ir.Value, kind: ir.DataType) -> ir.Value:
        """A graph output of `value`'s name in `kind`."""
        name = value.name
        value.name = f"{name}/inner"
        node = self._node(value, kind, str(name))
        self._graph.append(node)
        return node.outputs[0]

    @staticmethod
    def _node(value: ir.Value, kind: ir.DataType, name: str) -> ir.Node:
        output = ir.Value(name=name, type=ir.TensorType(kind), shape=value.shape)
        return ir.node("Cast", [value], {"to": int(kind)}, name=f"{name}/Cast", outputs=[output])
