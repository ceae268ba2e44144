"""What the products of a graph are really stored and computed in, against the plan they were made from.

Works on skeletons, whose initialisers have types and shapes but no data: a product that the plan calls int4 and the
graph holds in fp32 is refused before a byte of it is written. What ONNX Runtime makes of the finished file is counted
by `memrt.export.quantise.fused_operators`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from memrt.export.quantisers.insert import CODES, DYNAMIC_FP4
from memrt.runtime.errors import MemrtError

# Position of the weight among the inputs of each operator that has one.
WEIGHT_INPUT = {"MatMul": 1, "Gemm": 1, "Conv": 1}
PLAIN: dict[ir.DataType | None, str] = {
    ir.DataType.FLOAT: "fp32",
    ir.DataType.FLOAT16: "fp16",
    ir.DataType.BFLOAT16: "bf16",
}
STORED: dict[ir.DataType | None, str] = PLAIN | {dtype: scheme for scheme, dtype in CODES.items()}
ACTIVATIONS: dict[ir.DataType | None, str] = {
    ir.DataType.UINT8: "u8",
    ir.DataType.INT8: "s8",
    ir.DataType.FLOAT8E4M3FN: "fp8",
    ir.DataType.FLOAT4E2M1: "nvfp4",
}
MISMATCHES_NAMED = 5


@dataclass(frozen=True, slots=True)
class WeightProduct:
    """One product with a constant weight.

    `weight` is the name it had before it was quantised, `scheme` what it is stored in, `activation` how its other
    operand is rounded ("" if it is not), `compute` the type it runs in, `block` the input channels per scale, `nbytes`
    counts the scales too.
    """

    node: str
    operator: str
    weight: str
    scheme: str
    activation: str
    compute: str
    block: int
    elements: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class ProductAudit:
    """All weight products of a graph, in its order."""

    products: tuple[WeightProduct, ...]

    @property
    def shares(self) -> dict[str, float]:
        """Share of all weight elements by scheme; a weight that several products read counts once."""
        counts: Counter[str] = Counter()
        for product in self._once():
            counts[product.scheme] += product.elements
        total = max(1, sum(counts.values()))
        return {scheme: count / total for scheme, count in sorted(counts.items())}

    @property
    def nbytes(self) -> int:
        """Bytes of all weights and their scales, as they will lie in the external data."""
        return sum(product.nbytes for product in self._once())

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "shares": self.shares,
            "nbytes": self.nbytes,
            "products": [asdict(product) for product in self.products],
        }

    def table(self) -> str:
        """One line per product, for people."""
        lines = [f"{'weight':<44} {'stored':<6} {'block':>5} {'input':<6} {'runs in':<7} {'MB':>9}"]
        lines += [
            f"{p.weight:<44} {p.scheme:<6} {p.block or '':>5} {p.activation:<6} {p.compute:<7} {p.nbytes / 1e6:>9.3f}"
            for p in self.products
        ]
        return "\n".join(lines)

    def _once(self) -> list[WeightProduct]:
        return list({product.weight: product for product in self.products}.values())


def weight_products(model: ir.Model) -> ProductAudit:
    """Look at every MatMul, Gemm and Conv whose weight is an initialiser, quantised or not."""
    found = []
    for node in model.graph:
        position = WEIGHT_INPUT.get(node.op_type)
        weight = _stored(node.inputs[position]) if position is not None and len(node.inputs) > position else None
        if weight is not None:
            found.append(_describe(node, weight))
    return ProductAudit(tuple(found))


def audit_products(model: ir.Model, scheme_of: Callable[[str], str]) -> ProductAudit:
    """Compare every weight product with `scheme_of(weight name)`, for instance an `EnginePlan`'s method.

    Convolutions are listed, not judged: no scheme here packs them. Raises `MemrtError` naming the products that are
    stored in something else than planned, or that are called quantised while they compute in another type than their
    activations arrive in.
    """
    result = weight_products(model)
    wrong = [
        f"{p.weight} is {p.scheme}, planned {scheme_of(p.weight)}"
        for p in result.products
        if p.operator != "Conv" and p.scheme != scheme_of(p.weight)
    ]
    if wrong:
        more = f" and {len(wrong) - MISMATCHES_NAMED} more" if len(wrong) > MISMATCHES_NAMED else ""
        raise MemrtError(
            f"{len(wrong)} of {len(result.products)} weight products are not stored as planned",
            expected="every product in the scheme of the plan",
            found="; ".join(wrong[:MISMATCHES_NAMED]) + more,
            fix="change the plan to what this target can hold, or export again: nothing falls back by itself",
        )
    return result


def check_size(audit: ProductAudit, file_bytes: int, *, slack: float = 0.10, slack_bytes: int = 1 << 20) -> None:
    """Refuse a file or engine that holds more bytes than its weights need; raises `MemrtError`.

    `slack` and `slack_bytes` leave room for everything but the weights: code, tables, biases. TensorRT engines of tiny
    graphs hold about 0.5 MB of code.
    """
    limit = audit.nbytes * (1.0 + slack) + slack_bytes
    if file_bytes > limit:
        raise MemrtError(
            "the file is too large for the types its weights are said to have",
            expected=f"at most {limit:.0f} bytes for {audit.nbytes} bytes of weights",
            found=file_bytes,
            fix="look for products that were widened when the file was made; compare the audit's table with it",
        )


def _stored(value: ir.Value | None) -> ir.Value | None:
    """The initialiser behind a weight operand, through whatever only converts it; None if it is computed."""
    while value is not None and not value.is_initializer():
        node = value.producer()
        if node is None or node.op_type not in ("Cast", "DequantizeLinear", "Transpose", "Identity"):
            return None
        value = node.inputs[0]
    return value


def _describe(node: ir.Node, weight: ir.Value) -> WeightProduct:
    scheme = STORED.get(weight.dtype, weight.dtype.name.lower() if weight.dtype else "unknown")
    quantised = scheme not in PLAIN.values()
    operand = node.inputs[WEIGHT_INPUT[node.op_type]]
    constants = _constants(operand)
    reader = next((use.node for use in weight.uses() if use.node.op_type == "DequantizeLinear"), None)
    block = reader.attributes.get_int("block_size", 0) if quantised and reader is not None else 0
    return WeightProduct(
        node=node.name or "",
        operator=node.op_type,
        weight=str(weight.name).removesuffix("/quantised"),
        scheme=scheme,
        activation=_activation(node.inputs[0]),
        compute=PLAIN.get(operand.dtype if operand is not None else None, "unknown"),
        block=block,
        elements=_elements(weight),
        nbytes=sum(_nbytes(constant) for constant in constants),
    )


def _constants(value: ir.Value | None) -> list[ir.Value]:
    """The initialisers that a weight operand is made of: codes and scales."""
    if value is None or value.is_initializer():
        return [value] if value is not None else []
    node = value.producer()
    return [] if node is None else [constant for source in node.inputs for constant in _constants(source)]


def _activation(value: ir.Value | None) -> str:
    node = value.producer() if value is not None else None
    while node is not None and node.op_type == "Cast" and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None:
        return ""
    quantiser = node.inputs[0].producer()
    if quantiser is None or quantiser.op_type not in ("QuantizeLinear", DYNAMIC_FP4):
        return ""
    return ACTIVATIONS.get(node.inputs[0].dtype, "unknown")


def _elements(value: ir.Value) -> int:
    return int(np.prod(value.shape.numpy() if value.shape is not None else (), dtype=np.int64))


def _nbytes(value: ir.Value) -> int:
    return -(-_elements(value) * (value.dtype.bitwidth if value.dtype else 0) // 8)
