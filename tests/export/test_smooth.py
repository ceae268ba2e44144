from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from graphs import tiny_graph  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from memrt.export.quantise import quantise_int8  # noqa: E402
from memrt.export.reproducible import canonicalise, save_model  # noqa: E402
from memrt.export.smooth import smooth  # noqa: E402
from memrt.runtime.engine import open_engine  # noqa: E402
from memrt.runtime.engine.agreement import compare  # noqa: E402

WIDTH = 256


def outlier_feeds(count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Activations with a few channels a hundred times larger than the rest, as in transformers."""
    rng = np.random.default_rng(seed)
    size = np.ones(WIDTH)
    size[[3, 77, 200]] = 100.0
    return [{"x": (rng.normal(size=(7, WIDTH)) * size).astype(np.float32)} for _ in range(count)]


def normed_graph(norm: str) -> onnx.ModelProto:
    """y = Gemm^T(norm(x)) with the norm's weight as a constant of a product, or as a LayerNormalization's."""
    rng = np.random.default_rng(0)
    constants = {
        "g": rng.normal(size=WIDTH).astype(np.float32),
        "b": rng.normal(size=WIDTH).astype(np.float32),
        "w": (rng.normal(size=(8, WIDTH)) / WIDTH**0.5).astype(np.float32),
        "c": np.zeros(8, np.float32),
    }
    if norm == "Mul":
        nodes = [helper.make_node("Mul", ["x", "g"], ["n"], name="norm/Mul")]
        del constants["b"]
    else:
        nodes = [helper.make_node("LayerNormalization", ["x", "g", "b"], ["n"], name="norm/LayerNormalization")]
    nodes.append(helper.make_node("Gemm", ["n", "w", "c"], ["y"], name="up/Gemm", transB=1))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", WIDTH])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 8])
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(v, k) for k, v in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def outputs(model: onnx.ModelProto, path: Path, feeds: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    save_model(model, path)
    engine = open_engine(path)
    return [engine.run(feed) for feed in feeds]


def test_smoothing_changes_nothing_in_fp32(tmp_path: Path) -> None:
    model = tiny_graph(width=WIDTH)
    canonicalise(model)
    feeds = outlier_feeds(4, seed=1)
    before = outputs(model, tmp_path / "before.onnx", feeds)
    names = ["layers.0.up/MatMul", "layers.0.down/MatMul", "action_out_proj/Gemm"]
    assert smooth(model, names, feeds, alpha=0.5) == 3
    onnx.checker.check_model(model)
    assert sum(node.op_type == "Mul" for node in model.graph.node) == 3
    assert compare(before, outputs(model, tmp_path / "after.onnx", feeds)).relative_l2 < 1e-5


@pytest.mark.parametrize("norm", ["Mul", "LayerNormalization"])
def test_a_norm_takes_the_division(tmp_path: Path, norm: str) -> None:
    model = normed_graph(norm)
    feeds = outlier_feeds(4, seed=1)
    before = outputs(model, tmp_path / "before.onnx", feeds)
    assert smooth(model, ["up/Gemm"], feeds, alpha=0.5) == 1
    assert [node.op_type for node in model.graph.node] == [norm, "Gemm"]
    assert len(model.graph.initializer) == (3 if norm == "Mul" else 4)  # nothing left over
    assert compare(before, outputs(model, tmp_path / "after.onnx", feeds)).relative_l2 < 1e-5


def test_a_norm_with_another_reader_keeps_its_scale(tmp_path: Path) -> None:
    model = normed_graph("Mul")
    model.graph.output.append(helper.make_tensor_value_info("n", TensorProto.FLOAT, ["rows", WIDTH]))
    feeds = outlier_feeds(4, seed=1)
    before = outputs(model, tmp_path / "before.onnx", feeds)
    smooth(model, ["up/Gemm"], feeds, alpha=0.5)
    assert compare(before, outputs(model, tmp_path / "after.onnx", feeds)).relative_l2 < 1e-5


def test_smoothing_spares_int8_the_outliers(tmp_path: Path) -> None:
    save_model(tiny_graph(width=WIDTH), tmp_path / "fp32.onnx")
    feeds, held_out = outlier_feeds(8, seed=1), outlier_feeds(4, seed=2)
    reference = [open_engine(tmp_path / "fp32.onnx").run(feed) for feed in held_out]
    errors = {}
    for alpha in (0.0, 0.5):
        path = tmp_path / f"int8_{alpha}.onnx"
        report = quantise_int8(tmp_path / "fp32.onnx", path, feeds, smoothing=alpha)
        assert sum(report["fused"].values()) == 3
        engine = open_engine(path)
        errors[alpha] = compare(reference, [engine.run(feed) for feed in held_out]).relative_l2
    assert errors[0.5] < 0.5 * errors[0.0]


def test_silent_channels_and_zero_weights_are_no_trouble(tmp_path: Path) -> None:
    model = tiny_graph(width=WIDTH)
    canonicalise(model)
    feeds = [{"x": np.zeros((3, WIDTH), np.float32)}]
    smooth(model, ["layers.0.up/MatMul"], feeds, alpha=0.5)
    arrays = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    assert all(np.isfinite(array).all() for array in arrays)
