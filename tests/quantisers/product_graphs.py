"""Tiny graphs with weight products, as torch's exporter writes them, for the tests of the quantisers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from memrt.export.quantisers.insert import Activation, attach, packed_bytes, quantise_product, to_compute_type
from memrt.export.quantisers.packed import Compute, PackedWeight, Scheme, pack

WIDTH = 256


def weights(seed: int = 0, width: int = WIDTH) -> dict[str, torch.Tensor]:
    """`up.weight` and `gate.weight` read the same input, `down.weight` their product."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"up.weight": (width, 2 * width), "gate.weight": (width, 2 * width), "down.weight": (2 * width, width)}
    return {name: torch.randn(*shape, generator=generator) / shape[0] ** 0.5 for name, shape in shapes.items()}


def skeleton(opset: int = 23, *, width: int = WIDTH, data: bool = False, rows: int | str = "rows") -> ir.Model:
    """y = x + down(up(x) · sigmoid(gate(x))) on x fp32 [rows, width]; the weights hold data only if asked to."""
    single = ir.TensorType(ir.DataType.FLOAT)

    def value(name: str, columns: int) -> ir.Value:
        return ir.Value(name=name, shape=ir.Shape([rows, columns]), type=single)

    constants = {}
    for name, tensor in weights(width=width).items():
        constants[name] = ir.Value(name=name, shape=ir.Shape(tensor.shape), type=single)
        if data:
            constants[name].const_value = ir.tensor(tensor.numpy(), name=name)
    x = value("x", width)
    nodes: list[ir.Node] = []

    def node(operator: str, inputs: list[ir.Value], output: str, columns: int) -> ir.Value:
        nodes.append(ir.node(operator, inputs, name=f"{output}/{operator}", outputs=[value(output, columns)]))
        return nodes[-1].outputs[0]

    up = node("MatMul", [x, constants["up.weight"]], "up", 2 * width)
    gate = node("MatMul", [x, constants["gate.weight"]], "gate", 2 * width)
    hidden = node("Mul", [up, node("Sigmoid", [gate], "sigmoid", 2 * width)], "hidden", 2 * width)
    down = node("MatMul", [hidden, constants["down.weight"]], "down", width)
    y = node("Add", [x, down], "y", width)
    graph = ir.Graph([x], [y], nodes=nodes, opset_imports={"": opset}, name="graph")
    for name, constant in constants.items():
        graph.initializers[name] = constant
    return ir.Model(graph, ir_version=10 if opset <= 21 else 11)


def quantised(
    scheme: Scheme,
    *,
    opset: int = 23,
    block: int = 128,
    activation: Activation | None = None,
    compute: Compute = "fp32",
    width: int = WIDTH,
    rows: int | str = "rows",
) -> tuple[ir.Model, dict[str, PackedWeight]]:
    """The skeleton with all three products quantised, with data."""
    model = skeleton(opset, width=width, rows=rows)
    if compute != "fp32":
        to_compute_type(model, compute)
    packed = {}
    for name, weight in weights(width=width).items():
        packed[name] = pack(weight, scheme, block=block, scale_type=compute)
        for new in quantise_product(model, name, scheme, block=block, activation=activation, compute=compute):
            attach(model, new, packed_bytes(packed[name], new.role))
    return model, packed


def save(model: ir.Model, path: Path) -> Path:
    ir.save(model, path)
    return path


def reference(x: np.ndarray, matrices: dict[str, torch.Tensor]) -> np.ndarray:
    """What the graph computes in fp32 with these weights."""
    t = torch.from_numpy(x)
    hidden = (t @ matrices["up.weight"]) * torch.sigmoid(t @ matrices["gate.weight"])
    return (t + hidden @ matrices["down.weight"]).numpy()
