from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from graphs import feeds, tiny_graph  # noqa: E402

from memrt.export.reproducible import canonicalise, save_model  # noqa: E402
from memrt.runtime.engine import open_engine  # noqa: E402
from memrt.runtime.errors import MemrtError  # noqa: E402
from memrt.runtime.manifest import sha256_of  # noqa: E402


def test_nodes_are_named_after_their_modules() -> None:
    model = tiny_graph()
    canonicalise(model)
    assert [node.name for node in model.graph.node] == [
        "layers.0.up/MatMul",
        "layers.0/Tanh",
        "layers.0.down/MatMul",
        "layers.0/Add",
        "action_out_proj/Gemm",
    ]
    assert {t.name for t in model.graph.initializer} == {
        "layers.0.up/MatMul/weight",
        "layers.0.down/MatMul/weight",
        "action_out_proj/Gemm/weight",
        "b_out",
    }


def test_nothing_of_where_it_was_exported_remains(tmp_path: Path) -> None:
    model = tiny_graph()
    canonicalise(model)
    save_model(model, tmp_path / "a.onnx")
    data = (tmp_path / "a.onnx").read_bytes()
    for trace in (b"stack_trace", b"somewhere", b"exporter", b"1.2.3"):
        assert trace not in data


def test_canonical_form_is_a_fixed_point_and_computes_the_same(tmp_path: Path) -> None:
    model = tiny_graph()
    save_model(model, tmp_path / "raw.onnx")
    canonicalise(model)
    save_model(model, tmp_path / "once.onnx")
    canonicalise(model)
    save_model(model, tmp_path / "twice.onnx")
    assert sha256_of(tmp_path / "once.onnx") == sha256_of(tmp_path / "twice.onnx")
    for feed in feeds(3):
        raw = open_engine(tmp_path / "raw.onnx").run(feed)["y"]
        np.testing.assert_allclose(open_engine(tmp_path / "once.onnx").run(feed)["y"], raw, rtol=1e-5, atol=1e-6)


def test_nodes_in_any_order_are_sorted() -> None:
    model = tiny_graph()
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    canonicalise(model)
    onnx.checker.check_model(model)


def test_refuses_a_cycle() -> None:
    model = tiny_graph()
    model.graph.node[1].input[0] = "d"
    with pytest.raises(MemrtError, match="cycle"):
        canonicalise(model)


def test_hash_depends_on_the_weights(tmp_path: Path) -> None:
    for seed in (0, 1):
        model = tiny_graph(seed=seed)
        canonicalise(model)
        save_model(model, tmp_path / f"{seed}.onnx")
    assert sha256_of(tmp_path / "0.onnx") != sha256_of(tmp_path / "1.onnx")
