from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memrt.runtime.engine import open_engine
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import TensorSpec

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3) / 10


@pytest.fixture
def affine(tmp_path: Path) -> Path:
    """y = x @ WEIGHT, n = number of rows as int64; the number of rows is dynamic."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 3])
    n = helper.make_tensor_value_info("n", TensorProto.INT64, [2])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Shape", ["y"], ["n"])]
    graph = helper.make_graph(nodes, "affine", [x], [y, n], [numpy_helper.from_array(WEIGHT, "w")])
    path = tmp_path / "affine.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_tells_its_tensors(affine: Path) -> None:
    engine = open_engine(affine)
    assert engine.inputs == (TensorSpec("x", "float32", (-1, 4)),)
    assert engine.outputs == (TensorSpec("y", "float32", (-1, 3)), TensorSpec("n", "int64", (2,)))


@pytest.mark.parametrize("rows", [1, 5])
def test_runs_every_number_of_rows(affine: Path, rows: int) -> None:
    x = np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float32)
    outputs = open_engine(affine, threads=2).run({"x": x})
    np.testing.assert_allclose(outputs["y"], x @ WEIGHT, rtol=1e-5, atol=1e-6)
    assert outputs["n"].tolist() == [rows, 3]


def test_bound_run_works_in_place(affine: Path) -> None:
    x, y, n = np.zeros((2, 4), np.float32), np.zeros((2, 3), np.float32), np.zeros(2, np.int64)
    bound = open_engine(affine).bind({"x": x}, {"y": y, "n": n})
    for value in (1.0, -2.0):
        x[:] = value
        bound.run()
        np.testing.assert_allclose(y, x @ WEIGHT, rtol=1e-5)


def test_bound_memory_must_not_be_strided(affine: Path) -> None:
    strided = np.zeros((4, 4), np.float32)[::2]
    with pytest.raises(MemrtError, match="C-contiguous"):
        open_engine(affine).bind({"x": strided}, {"y": np.zeros((2, 3), np.float32), "n": np.zeros(2, np.int64)})


@pytest.mark.parametrize(
    ("feeds", "told"),
    [
        ({}, "missing \\['x'\\]"),
        ({"x": np.zeros((1, 4), np.float32), "z": np.zeros(1, np.float32)}, "unknown \\['z'\\]"),
        ({"x": np.zeros((1, 4), np.float64)}, "expected float32, found float64"),
        ({"x": np.zeros((1, 5), np.float32)}, "found \\[1, 5\\]"),
        ({"x": np.zeros(4, np.float32)}, "found \\[4\\]"),
    ],
)
def test_refuses_wrong_inputs(affine: Path, feeds: dict[str, np.ndarray], told: str) -> None:
    with pytest.raises(MemrtError, match=told):
        open_engine(affine).run(feeds)


def test_closed_engine_refuses(affine: Path) -> None:
    engine = open_engine(affine)
    engine.close()
    engine.close()
    with pytest.raises(MemrtError, match="was closed"):
        engine.run({"x": np.zeros((1, 4), np.float32)})


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MemrtError, match="missing"):
        open_engine(tmp_path / "none.onnx")


def test_refuses_a_corrupt_file(affine: Path) -> None:
    affine.write_bytes(affine.read_bytes()[:-20])
    with pytest.raises(MemrtError, match="cannot load"):
        open_engine(affine)


def test_refuses_an_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(MemrtError, match="no backend"):
        open_engine(tmp_path / "engine.plan")


def test_refuses_no_threads(affine: Path) -> None:
    with pytest.raises(MemrtError, match="threads >= 1"):
        open_engine(affine, threads=0)


def test_says_which_extra_is_missing(affine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MemrtError, match=r"memrt\[cpu\]"):
        open_engine(affine)
