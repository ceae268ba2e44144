from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from graphs import feeds, tiny_graph  # noqa: E402

from memrt.calib.ranges import RangeMethod  # noqa: E402
from memrt.export.quantise import QuantisationReport, audit, quantise_int8  # noqa: E402
from memrt.export.reproducible import save_model  # noqa: E402
from memrt.runtime.engine import open_engine  # noqa: E402
from memrt.runtime.engine.agreement import compare  # noqa: E402
from memrt.runtime.errors import MemrtError  # noqa: E402
from memrt.runtime.manifest import sha256_of  # noqa: E402

WIDE = 256  # wide enough that graph nodes weigh nothing beside the weights


@pytest.fixture
def fp32(tmp_path: Path) -> Path:
    path = tmp_path / "fp32.onnx"
    save_model(tiny_graph(width=WIDE), path)
    return path


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_int8_computes_nearly_the_same_in_integer_kernels(fp32: Path, tmp_path: Path, method: str) -> None:
    out = tmp_path / "int8.onnx"
    report = quantise_int8(fp32, out, feeds(8, width=WIDE), method=RangeMethod(method), exclude=["*action_out_proj*"])
    assert report["nodes_quantised"] == 2
    assert report["nodes_kept_fp32"] == ["action_out_proj/Gemm"]
    assert sum(report["fused"].values()) == 2
    assert report["bytes_int8"] < 0.3 * report["bytes_fp32"]
    held_out = feeds(5, seed=9, width=WIDE)
    reference = [open_engine(fp32).run(feed) for feed in held_out]
    agreement = compare(reference, [open_engine(out).run(feed) for feed in held_out])
    assert agreement.relative_l2 < 0.02
    assert agreement.relative_l2 > 0  # else it was not quantised at all


def test_gemm_is_quantised_too(fp32: Path, tmp_path: Path) -> None:
    report = quantise_int8(fp32, tmp_path / "int8.onnx", feeds(8, width=WIDE))
    assert report["nodes_kept_fp32"] == []
    assert report["weight_share"] == 1.0
    assert sum(report["fused"].values()) == 3


def test_residual_keeps_full_precision(fp32: Path, tmp_path: Path) -> None:
    """Only the quantised products may read rounded activations: the residual add reads x itself."""
    quantise_int8(fp32, tmp_path / "int8.onnx", feeds(4, width=WIDE))
    model = onnx.load(str(tmp_path / "int8.onnx"))
    (add,) = [node for node in model.graph.node if node.op_type == "Add"]
    assert "x" in add.input
    onnx.checker.check_model(model)


def test_quantising_twice_gives_the_same_bytes(fp32: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        quantise_int8(fp32, tmp_path / f"{name}.onnx", feeds(4, width=WIDE))
    assert sha256_of(tmp_path / "a.onnx") == sha256_of(tmp_path / "b.onnx")


def test_reduced_range_keeps_weights_in_seven_bits(fp32: Path, tmp_path: Path) -> None:
    quantise_int8(fp32, tmp_path / "int8.onnx", feeds(4, width=WIDE), reduce_range=True)
    model = onnx.load(str(tmp_path / "int8.onnx"))
    weights = [onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name.endswith("weight_quantized")]
    assert len(weights) == 3
    assert all(np.abs(w.astype(np.int32)).max() <= 64 for w in weights)


def test_refuses_when_everything_is_excluded(fp32: Path, tmp_path: Path) -> None:
    with pytest.raises(MemrtError, match="nothing to quantise"):
        quantise_int8(fp32, tmp_path / "int8.onnx", feeds(2, width=WIDE), exclude=["*"])


def test_refuses_a_mostly_fp32_result(fp32: Path, tmp_path: Path) -> None:
    with pytest.raises(MemrtError, match=r"too few weights.*layers.0.up"):
        quantise_int8(fp32, tmp_path / "int8.onnx", feeds(2, width=WIDE), exclude=["*up*", "*action_out_proj*"])


GOOD = QuantisationReport(4, (), 1000_000, 1000_000, 4_100_000, 1_150_000, {"MatMulIntegerToFloat": 4}, "mse")


def test_audit_accepts_a_sound_report() -> None:
    audit(GOOD, "engine")


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (replace(GOOD, weights_quantised=500_000), "too few weights"),
        (replace(GOOD, bytes_int8=4_000_000), "too large"),
        (replace(GOOD, fused={"MatMulIntegerToFloat": 2}), "unfused"),
    ],
)
def test_audit_refuses(broken: QuantisationReport, told: str) -> None:
    with pytest.raises(MemrtError, match=told):
        audit(broken, "engine")
