"""Quantised products in a graph skeleton: DequantizeLinear on the weight, QuantizeLinear/DequantizeLinear on its input.

A skeleton is an `onnx_ir.Model` whose weights have a name, a type and a shape, but not necessarily data. What is
inserted has none either: `quantise_product` says which initialisers the graph now expects, and the exporter streams
their bytes.

One calibration, two artefacts. ONNX Runtime fuses U8 activations × S8 weights, and int4 weights alone (MatMulNBits);
TensorRT takes symmetric activations only (S8, e4m3). The pattern is the same, so is this code; the caller chooses the
activation's kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from memrt.export.quantisers.activations import Activation
from memrt.export.quantisers.compute_type import DATA_TYPES, to_compute_type
from memrt.export.quantisers.packed import NUMPY_TYPES, NVFP4_BLOCK, Compute, PackedWeight, Scheme, block_size
from memrt.runtime.errors import MemrtError

__all__ = ["Activation", "NewInitialiser", "attach", "opset", "packed_bytes", "quantise_product", "to_compute_type"]

Role = Literal["values", "scale", "second_scale"]

CODES: dict[Scheme, ir.DataType] = {
    "int8": ir.DataType.INT8,
    "int4": ir.DataType.INT4,
    "fp8": ir.DataType.FLOAT8E4M3FN,
    "nvfp4": ir.DataType.FLOAT4E2M1,
}
# The first opset whose DequantizeLinear knows the type (onnx/defs/quantization).
FIRST_OPSET: dict[str, int] = {"int8": 13, "int4": 21, "fp8": 19, "nvfp4": 23, "u8": 13, "s8": 13}
ZERO_POINTS: dict[str, Any] = {
    "u8": np.uint8,
    "s8": np.int8,
    "fp8": ml_dtypes.float8_e4m3fn,
}
# TensorRT's own operator; ONNX has none that finds e4m3 block scales at run time.
TENSORRT_DOMAIN = "trt"
DYNAMIC_FP4 = "TRT_FP4DynamicQuantize"


@dataclass(frozen=True, slots=True)
class NewInitialiser:
    """An initialiser of the weight that the graph now expects; `shape` in elements, `role` says what it holds."""

    name: str
    dtype: ir.DataType
    shape: tuple[int, ...]
    role: Role

    @property
    def nbytes(self) -> int:
        """Bytes of its raw data; two 4-bit elements share one."""
        return -(-int(np.prod(self.shape, dtype=np.int64)) * self.dtype.bitwidth // 8)


def packed_bytes(packed: PackedWeight, role: Role) -> bytes:
    """The raw data of the initialiser with `role`."""
    if role == "values":
        return packed.to_bytes()
    return packed.scale_bytes() if role == "scale" else packed.second_scale_bytes()


def attach(model: ir.Model, new: NewInitialiser, raw: bytes) -> None:
    """Give an initialiser its data in memory, for graphs that are small enough to be saved in one piece."""
    if len(raw) != new.nbytes:
        raise MemrtError(
            f"data of initialiser {new.name}",
            expected=f"{new.nbytes} bytes for {new.dtype.name} {list(new.shape)}",
            found=len(raw),
            fix="pack the weight with the scheme, block and compute type that the graph was given",
        )
    import onnx

    proto = onnx.TensorProto(name=new.name, data_type=int(new.dtype), dims=new.shape, raw_data=raw)
    model.graph.initializers[new.name].const_value = ir.serde.deserialize_tensor(proto)


def opset(model: ir.Model) -> int:
    """The version of ONNX's own operators in `model`."""
    return int(model.opset_imports.get("", 0))


def quantise_product(
    model: ir.Model,
    weight_name: str,
    scheme: Scheme,
    *,
    block: int = 128,
    activation: Activation | None = None,
    compute: Compute = "fp32",
) -> list[NewInitialiser]:
    """Let every MatMul that reads the initialiser `weight_name` [in, out] read quantised codes instead.

    `block` is what `pack` was, or will be, given. `compute` is the type the product runs in, which the graph must
    already have (`to_compute_type`). With `activation`, the product's other operand is rounded too; an activation
    quantised twice with the same parameters is rounded once, and its other readers keep the unrounded tensor.

    Returns the initialisers that replace the weight, without data. All names derive from the weight's and the
    activation's. Raises `MemrtError` when there is no such weight, another operator reads it, the types disagree, or
    the graph's opset does not know the scheme.
    """
    weight, products = _products(model, weight_name, compute)
    _check_opset(model, scheme, activation)
    rows, columns = weight.shape.numpy() if weight.shape is not None else (0, 0)
    size = block_size(rows, scheme, block)
    editor = _Editor(model, compute)
    output, new = editor.dequantised_weight(weight_name, scheme, rows, columns, size, before=products[0])
    for product in products:
        product.replace_input_with(1, output)
        source = product.inputs[0]
        if activation is not None and source is not None:
            product.replace_input_with(0, editor.rounded(source, activation))
    if not weight.uses() and not weight.is_graph_output():
        del model.graph.initializers[weight_name]
    return new


def _products(model: ir.Model, name: str, compute: Compute) -> tuple[ir.Value, list[ir.Node]]:
    """The weight and its readers, first in the graph first."""
    weight = model.graph.initializers.get(name)
    if weight is None or weight.shape is None or len(weight.shape) != 2:
        raise MemrtError(
            f"no weight matrix {name} in the graph",
            expected="the name of an initialiser [in, out]",
            found="no such initialiser" if weight is None else f"shape {weight.shape}",
            fix="name weights as the graph does: the module's path and .weight",
        )
    uses = list(weight.uses())
    others = [f"{use.node.name} ({use.node.op_type})" for use in uses if use.node.op_type != "MatMul" or use.idx != 1]
    if others or not uses:
        raise MemrtError(
            f"{name} is not the second operand of matrix products alone",
            expected="MatMul(x, weight)",
            found=", ".join(others) or "nobody reads it",
            fix="keep this weight unquantised in the plan, or give the product a weight of its own",
        )
    if weight.dtype != DATA_TYPES[compute]:
        raise MemrtError(
            f"the product with {name} does not compute in {compute}",
            expected=DATA_TYPES[compute].name,
            found=weight.dtype.name if weight.dtype else "no type",
            fix="call to_compute_type(model, compute) before quantising its products",
        )
    readers = {use.node for use in uses}
    return weight, [node for node in model.graph if node in readers]


def _check_opset(model: ir.Model, scheme: Scheme, activation: Activation | None) -> None:
    kinds = [scheme] if activation is None else [scheme, activation[0]]
    needed = max(FIRST_OPSET[kind] for kind in kinds)
    if opset(model) < needed:
        raise MemrtError(
            f"the graph's opset does not know {' and '.join(kinds)}",
            expected=f"opset {needed} or later",
            found=opset(model),
            fix=f"export the graph with opset {needed}",
        )


class _Editor:
    """The insertions into one graph."""

    def __init__(self, model: ir.Model, compute: Compute) -> None:
        self._model, self._graph, self._compute = model, model.graph, compute
        self._type = DATA_TYPES[compute]

    def dequantised_weight(
        self, name: str, scheme: Scheme, rows: int, columns: int, block: int, *, before: ir.Node
    ) -> tuple[ir.Value, list[NewInitialiser]]:
        """DequantizeLinear(codes, scale) in front of `before`; for nvfp4 the scale is itself dequantised."""
        two_levels = scheme == "nvfp4"
        shape = (rows // block, columns) if block else (columns,)
        scale_type = ir.DataType.FLOAT8E4M3FN if two_levels else self._type
        new = [
            NewInitialiser(f"{name}/quantised", CODES[scheme], (rows, columns), "values"),
            NewInitialiser(f"{name}/scale", scale_type, shape, "scale"),
        ]
        if two_levels:
            new.append(NewInitialiser(f"{name}/second_scale", ir.DataType.FLOAT, (), "second_scale"))
        values = [self._initialiser(item) for item in new]
        scale, nodes = values[1], []
        result = ir.DataType.FLOAT if two_levels else self._type
        if two_levels:
            nodes.append(self._node("DequantizeLinear", [scale, values[2]], f"{name}/scale", "dequantised", {}, result))
            scale = nodes[-1].outputs[0]
        layout = {"axis": 0, "block_size": block} if block else {"axis": 1}
        nodes.append(self._node("DequantizeLinear", [values[0], scale], name, "dequantised", layout, result))
        if result != self._type:
            source = nodes[-1].outputs[0]
            nodes.append(self._node("Cast", [source], name, self._compute, {"to": int(self._type)}, self._type))
        self._graph.insert_before(before, nodes)
        return nodes[-1].outputs[0], new

    def rounded(self, source: ir.Value, activation: Activation) -> ir.Value:
        """`source` rounded as `activation` says; the value that is there already where the parameters are the same."""
        kind = activation[0]
        parameters = self._parameters(activation)
        quantiser = DYNAMIC_FP4 if kind == "nvfp4" else "QuantizeLinear"
        existing = [use.node for use in source.uses() if use.node.op_type == quantiser and use.idx == 0]
        for node in existing:
            if self._same(node, parameters):
                value = _reader(node.outputs[0]).outputs[0]
                return value if value.dtype == self._type else _reader(value).outputs[0]  # behind fp4's Cast
        stem = f"{source.name}/{kind}" if not existing else f"{source.name}/{kind}_{len(existing) + 1}"
        constants = [self._constant(f"{stem}/{name}", array) for name, array in parameters]
        nodes = (self._dynamic_fp4 if kind == "nvfp4" else self._static)(source, constants, stem)
        producer = source.producer()
        if producer is not None:
            self._graph.insert_after(producer, nodes)
        else:
            self._graph.insert_before(self._graph[0], nodes)
        return nodes[-1].outputs[0]

    def _static(self, source: ir.Value, constants: list[ir.Value], stem: str) -> list[ir.Node]:
        kind = constants[1].dtype or ir.DataType.UNDEFINED
        codes = self._node("QuantizeLinear", [source, *constants], stem, "quantised", {}, kind)
        values = self._node("DequantizeLinear", [codes.outputs[0], *constants], stem, "dequantised", {}, self._type)
        return [codes, values]

    def _dynamic_fp4(self, source: ir.Value, constants: list[ir.Value], stem: str) -> list[ir.Node]:
        attributes = {"axis": -1, "block_size": NVFP4_BLOCK, "scale_type": int(ir.DataType.FLOAT8E4M3FN)}
        codes = ir.node(
            DYNAMIC_FP4,
            [source, *constants],
            attributes,
            domain=TENSORRT_DOMAIN,
            name=f"{stem}/{DYNAMIC_FP4}",
            outputs=[
                ir.Value(name=f"{stem}/quantised", type=ir.TensorType(ir.DataType.FLOAT4E2M1)),
                ir.Value(name=f"{stem}/scales", type=ir.TensorType(ir.DataType.FLOAT8E4M3FN)),
            ],
        )
        self._model.opset_imports.setdefault(TENSORRT_DOMAIN, 1)
        single = ir.DataType.FLOAT
        blocks = [codes.outputs[1], *constants]
        scales = self._node("DequantizeLinear", blocks, f"{stem}/scales", "dequantised", {}, single)
        layout = {"axis": -1, "block_size": NVFP4_BLOCK}
        both = [codes.outputs[0], scales.outputs[0]]
        nodes = [codes, scales, self._node("DequantizeLinear", both, stem, "dequantised", layout, single)]
        if self._type != single:
            cast = {"to": int(self._type)}
            nodes.append(self._node("Cast", [nodes[-1].outputs[0]], stem, self._compute, cast, self._type))
        return nodes

    def _parameters(self, activation: Activation) -> list[tuple[str, NDArray[Any]]]:
        """Names and values of the quantiser's constants, scale first."""
        if activation[0] == "nvfp4":
            return [("scale", np.array(activation[1], np.float32))]
        scale = np.array(activation[1]).astype(NUMPY_TYPES[self._compute])
        zero = activation[2] if activation[0] == "u8" else 0
        return [("scale", scale), ("zero_point", np.array(zero).astype(ZERO_POINTS[activation[0]]))]

    @staticmethod
    def _same(quantiser: ir.Node, parameters: list[tuple[str, NDArray[Any]]]) -> bool:
        found = [value.const_value.numpy() for value in quantiser.inputs[1:] if value is not None and value.const_value]
        wanted = [array for _, array in parameters]
        return len(found) == len(wanted) and all(
            a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(found, wanted, strict=True)
        )

    def _constant(self, name: str, array: NDArray[Any]) -> ir.Value:
        value = ir.val(name, const_value=ir.tensor(array, name=name))
        self._graph.initializers[name] = value
        return value

    def _initialiser(self, new: NewInitialiser) -> ir.Value:
        value = ir.Value(name=new.name, type=ir.TensorType(new.dtype), shape=ir.Shape(new.shape))
        self._graph.initializers[new.name] = value
        return value

    def _node(
        self,
        operator: str,
        inputs: Sequence[ir.Value],
        stem: str,
        result: str,
        attributes: dict[str, int],
        dtype: ir.DataType,
    ) -> ir.Node:
        """A node whose output, `<stem>/<result>`, has the shape of its first input."""
        output = ir.Value(name=f"{stem}/{result}", type=ir.TensorType(dtype), shape=inputs[0].shape)
        return ir.node(operator, inputs, attributes, name=f"{stem}/{operator}", outputs=[output])


def _reader(value: ir.Value) -> ir.Node:
    return next(iter(value.uses())).node
