from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator
from product_graphs import WIDTH, quantised, reference, save, skeleton, weights

from memrt.export.quantise import fused_operators
from memrt.export.quantisers.activations import Activation
from memrt.export.quantisers.insert import attach, quantise_product
from memrt.export.quantisers.packed import SCHEMES, Compute, Scheme
from memrt.runtime.engine.onnxruntime import DISABLED_OPTIMIZERS, OnnxRuntimeEngine, session_options
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import sha256_of
from memrt.runtime.processor import Processor, this_processor

U8: Activation = ("u8", 8 / 255, 128)
S8: Activation = ("s8", 4 / 127)
VNNI = Processor("with VNNI", "x86_64", frozenset({"avx2", "avx512_vnni"}))


def x(rows: int = 5) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, WIDTH)).astype(np.float32)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected - x()))


def optimised(path: Path, tmp_path: Path, processor: Processor | None = None) -> Counter[str]:
    """Operators of the graph as ONNX Runtime optimises it, under the options for `processor`."""
    import onnxruntime

    options = session_options(threads=1, processor=processor)
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(DISABLED_OPTIMIZERS)
    )
    return Counter(node.op_type for node in onnx.load(str(tmp_path / "optimised.onnx")).graph.node)


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


@pytest.mark.parametrize("scheme", ["int8", "int4", "fp8"])
def test_the_graph_computes_what_torch_computes_with_dequantised_weights(scheme: Scheme, tmp_path: Path) -> None:
    model, packed = quantised(scheme, opset=21)
    path = save(model, tmp_path / "model.onnx")
    onnx.checker.check_model(str(path), full_check=True)
    expected = reference(x(), {name: weight.dequantise() for name, weight in packed.items()})
    found = ReferenceEvaluator(str(path)).run(None, {"x": x()})[0]
    assert relative(found, expected) < 1e-5


def test_nvfp4_is_a_valid_graph_with_two_levels(tmp_path: Path) -> None:
    model, packed = quantised("nvfp4")
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    assert operators(model)["DequantizeLinear"] == 6
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    codes = stored["down.weight/quantised"].astype(np.float32)
    scale = stored["down.weight/scale"].astype(np.float32) * stored["down.weight/second_scale"]
    dequantised = packed["down.weight"].dequantise().numpy()
    assert np.allclose(codes * np.repeat(scale, 16, 0), dequantised, rtol=1e-6, atol=0)


@pytest.mark.parametrize("opset", [20, 23])
def test_unsigned_activations_with_int8_weights_become_integer_kernels(opset: int, tmp_path: Path) -> None:
    model, _ = quantised("int8", opset=opset, activation=U8)
    path = save(model, tmp_path / "model.onnx")
    assert fused_operators(path) == {"MatMulIntegerToFloat": 3}
    found = OnnxRuntimeEngine(path).run({"x": x()})["y"]
    assert relative(found, reference(x(), weights())) < 0.04


@pytest.mark.parametrize("compute", ["fp32", "fp16"])
@pytest.mark.parametrize("block", [32, 128])
def test_int4_weights_become_matmulnbits(compute: Compute, block: int, tmp_path: Path) -> None:
    model, packed = quantised("int4", opset=21, block=block, compute=compute)
    path = save(model, tmp_path / "model.onnx")
    kernels = optimised(path, tmp_path)
    assert kernels["MatMulNBits"] == 3
    assert kernels["DequantizeLinear"] == kernels["MatMul"] == 0
    expected = reference(x(), {name: weight.dequantise() for name, weight in packed.items()})
    # The kernel rounds activations to 8 bits, block by block.
    assert relative(OnnxRuntimeEngine(path).run({"x": x()})["y"], expected) < 0.02


def test_int8_weights_alone_become_matmulnbits_where_no_product_saturates(tmp_path: Path) -> None:
    path = save(quantised("int8", opset=21)[0], tmp_path / "model.onnx")
    assert optimised(path, tmp_path, VNNI)["MatMulNBits"] == 3
    if this_processor().saturates:  # only there the option for exact products is heeded: it makes U8 of the weights
        exact = optimised(path, tmp_path)
        assert (exact["MatMulNBits"], exact["DequantizeLinear"], exact["MatMul"]) == (0, 3, 3)


def test_one_activation_is_rounded_once_and_other_readers_keep_it() -> None:
    model, _ = quantised("int8", activation=S8)
    assert operators(model)["QuantizeLinear"] == 2  # of x, read by two products, and of hidden
    assert next(node for node in model.graph if node.op_type == "Add").inputs[0].name == "x"
    names = {node.name for node in model.graph}
    assert {"x/s8/QuantizeLinear", "x/s8/DequantizeLinear", "up.weight/DequantizeLinear"} <= names


def test_other_parameters_are_another_rounding() -> None:
    model = skeleton()
    for name, scale in (("gate.weight", 0.1), ("up.weight", 0.2)):
        quantise_product(model, name, "int8", activation=("s8", scale))
    names = [node.name for node in model.graph if node.op_type == "QuantizeLinear"]
    assert sorted(names) == ["x/s8/QuantizeLinear", "x/s8_2/QuantizeLinear"]
    assert "x/s8_2/scale" in model.graph.initializers


def test_dynamic_fp4_activations_are_shared_too() -> None:
    model, _ = quantised("nvfp4", activation=("nvfp4", 4 / 2688), compute="bf16")
    assert operators(model)["TRT_FP4DynamicQuantize"] == 2
    assert model.opset_imports["trt"] == 1


def test_skeletons_without_data_learn_what_they_expect() -> None:
    model = skeleton(opset=21)
    new = quantise_product(model, "up.weight", "int4", block=64)
    assert [(item.name, item.dtype, item.shape, item.role, item.nbytes) for item in new] == [
        ("up.weight/quantised", ir.DataType.INT4, (WIDTH, 2 * WIDTH), "values", WIDTH * WIDTH),
        ("up.weight/scale", ir.DataType.FLOAT, (WIDTH // 64, 2 * WIDTH), "scale", WIDTH // 64 * 2 * WIDTH * 4),
    ]
    assert "up.weight" not in model.graph.initializers
    with pytest.raises(MemrtError, match="bytes for INT4"):
        attach(model, new[0], b"0")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_same_input_gives_the_same_bytes(scheme: Scheme, tmp_path: Path) -> None:
    hashes = {sha256_of(save(quantised(scheme)[0], tmp_path / f"{i}.onnx")) for i in range(2)}
    assert len(hashes) == 1


def test_products_in_any_order_keep_the_graph_sorted(tmp_path: Path) -> None:
    model = skeleton(data=True)
    for name in ("down.weight", "gate.weight", "up.weight"):
        quantise_product(model, name, "int8", activation=S8)
    seen = {value.name for value in model.graph.inputs} | set(model.graph.initializers)
    for node in model.graph:
        assert all(value is None or value.name in seen for value in node.inputs), node.name
        seen |= {value.name for value in node.outputs}


def test_what_cannot_be_quantised_is_refused() -> None:
    with pytest.raises(MemrtError, match="no such initialiser"):
        quantise_product(skeleton(), "side.weight", "int8")
    with pytest.raises(MemrtError, match="opset 21"):
        quantise_product(skeleton(opset=20), "up.weight", "int4")
    with pytest.raises(MemrtError, match="opset 23"):
        quantise_product(skeleton(opset=21), "up.weight", "nvfp4")
    with pytest.raises(MemrtError, match="does not compute in bf16"):
        quantise_product(skeleton(), "up.weight", "int4", compute="bf16")
    model = skeleton()
    add = next(node for node in model.graph if node.op_type == "Add")
    model.graph.append(ir.node("Gather", [model.graph.initializers["up.weight"], add.inputs[0]], name="reads/Gather"))
    with pytest.raises(MemrtError, match=r"reads/Gather \(Gather\)"):
        quantise_product(model, "up.weight", "int8")
