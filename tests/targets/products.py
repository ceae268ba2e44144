"""Graphs of one product y = x @ w, as TensorRT is given them: fp16, int8, int4, fp8, and with casts around fp32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROWS, COLUMNS = 512, 512
ELEMENTS = ROWS * COLUMNS
HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


def write_product(path: Path, kind: str) -> Path:
    """Write the graph `kind` with dynamic rows; weights are in external data, as large graphs have them."""
    rng = np.random.default_rng(0)
    out = FLOAT if kind == "fp32_output" else HALF
    nodes, constants = {
        "fp16": _fp16,
        "int8": _int8,
        "int4": _int4,
        "fp8": _fp8,
        "fp32_between_casts": _fp32_between_casts,
        "fp32_output": _fp32_output,
        "unknown_operator": _unknown_operator,
    }[kind](rng)
    x = helper.make_tensor_value_info("x", HALF, ["tokens", ROWS])
    y = helper.make_tensor_value_info("y", out, ["tokens", COLUMNS])
    graph = helper.make_graph(nodes, "main", [x], [y], constants)
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=11)
    data = f"{path.name}.data"
    onnx.save_model(model, str(path), save_as_external_data=True, location=data, size_threshold=64)
    return path


def _weight(rng: np.random.Generator, dtype: type) -> np.ndarray:
    return (rng.normal(size=(ROWS, COLUMNS)) / ROWS**0.5).astype(dtype)


def _fp16(rng):
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="up/MatMul")
    return [node], [numpy_helper.from_array(_weight(rng, np.float16), "w")]


def _int8(rng):
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale"], ["x_q"], name="up/Quantize"),
        helper.make_node("DequantizeLinear", ["x_q", "x_scale"], ["x_d"], name="up/Dequantize"),
        helper.make_node("DequantizeLinear", ["w_q", "w_scale"], ["w"], axis=1, name="up/Weight"),
        helper.make_node("MatMul", ["x_d", "w"], ["y"], name="up/MatMul"),
    ]
    weight = rng.integers(-127, 128, size=(ROWS, COLUMNS)).astype(np.int8)
    scale = (rng.random(COLUMNS) * 0.01).astype(np.float16)
    return nodes, [
        numpy_helper.from_array(weight, "w_q"),
        numpy_helper.from_array(scale, "w_scale"),
        numpy_helper.from_array(np.asarray(0.05, np.float16), "x_scale"),
    ]


def _int4(rng):
    nodes = [
        helper.make_node("DequantizeLinear", ["w_q", "w_scale"], ["w"], axis=0, block_size=128, name="up/Weight"),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="up/MatMul"),
    ]
    values = rng.integers(-8, 8, size=ELEMENTS).tolist()
    scale = (rng.random((ROWS // 128, COLUMNS)) * 0.01).astype(np.float16)
    return nodes, [
        helper.make_tensor("w_q", TensorProto.INT4, [ROWS, COLUMNS], values),
        numpy_helper.from_array(scale, "w_scale"),
    ]


def _fp8(rng):
    nodes, (_, w_scale, x_scale) = _int8(rng)
    bits = rng.integers(0, 120, size=ELEMENTS).astype(np.uint8)  # below 120: finite, positive
    weight = helper.make_tensor("w_q", TensorProto.FLOAT8E4M3FN, [ROWS, COLUMNS], bits.tobytes(), raw=True)
    zero = helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], b"\0", raw=True)
    nodes[0].input.append("zero")
    return nodes, [weight, w_scale, x_scale, zero]


def _fp32_between_casts(rng):
    nodes = [
        helper.make_node("Cast", ["x"], ["x_f"], to=FLOAT, name="head/Cast"),
        helper.make_node("MatMul", ["x_f", "w"], ["y_f"], name="head/MatMul"),
        helper.make_node("Cast", ["y_f"], ["y"], to=HALF, name="head/Cast_1"),
    ]
    return nodes, [numpy_helper.from_array(_weight(rng, np.float32), "w")]


def _fp32_output(rng):
    nodes, constants = _fp32_between_casts(rng)
    nodes[1].output[0] = "y"
    return nodes[:2], constants


def _unknown_operator(rng):
    node = helper.make_node("MatMulNBits", ["x", "w"], ["y"], name="layers.3.qkv/MatMulNBits", domain="com.microsoft")
    return [node], [numpy_helper.from_array(_weight(rng, np.float16), "w")]
