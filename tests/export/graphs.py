"""A tiny transformer-like ONNX graph, built by hand, for the export tests."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 32


def tiny_graph(*, scopes: bool = True, seed: int = 0, width: int = WIDTH) -> onnx.ModelProto:
    """y = out_proj(x + down(tanh(up^T(x)))) on x [rows, width]; `up` is stored transposed, as torch stores it."""
    rng = np.random.default_rng(seed)
    weights = {
        "w_up": rng.normal(size=(4 * width, width)).astype(np.float32) / width**0.5,
        "w_down": rng.normal(size=(4 * width, width)).astype(np.float32) / width,
        "w_out": rng.normal(size=(width, 8)).astype(np.float32) / width**0.5,
        "b_out": rng.normal(size=8).astype(np.float32),
    }
    nodes = [
        helper.make_node("Transpose", ["w_up"], ["t"], name="node_t", perm=[1, 0]),
        helper.make_node("MatMul", ["x", "t"], ["a"], name="node_linear"),
        helper.make_node("Tanh", ["a"], ["r"], name="node_tanh"),
        helper.make_node("MatMul", ["r", "w_down"], ["d"], name="node_linear_1"),
        helper.make_node("Add", ["x", "d"], ["s"], name="node_add"),
        helper.make_node("Gemm", ["s", "w_out", "b_out"], ["y"], name="node_linear_2"),
    ]
    modules = ["layers.0.up", "layers.0.up", "layers.0", "layers.0.down", "layers.0", "action_out_proj"]
    for node, module in zip(nodes, modules, strict=True):
        if scopes:
            node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=str(["", module, "op"]))
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=f"File somewhere, seed {seed}")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", width])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 8])
    graph = helper.make_graph(nodes, "main", [x], [y], [numpy_helper.from_array(v, k) for k, v in weights.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model.producer_name, model.producer_version = "exporter", "1.2.3"
    return model


def feeds(count: int, seed: int = 1, width: int = WIDTH) -> list[dict[str, np.ndarray]]:
    """Feeds with differing numbers of rows."""
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(size=(int(rng.integers(1, 20)), width)).astype(np.float32)} for _ in range(count)]
