"""int8 in blocks, without calibration: close to fp32 in integer kernels, reproducible, honest about what stays fp32."""

from __future__ import annotations

from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from graphs import feeds, tiny_graph  # noqa: E402

from memrt.export.quantise import quantise_int8  # noqa: E402
from memrt.export.quantise_blocks import OPERATOR, quantise_int8_blocks  # noqa: E402
from memrt.export.reproducible import save_model  # noqa: E402
from memrt.runtime.engine import open_engine  # noqa: E402
from memrt.runtime.engine.agreement import compare  # noqa: E402
from memrt.runtime.errors import MemrtError  # noqa: E402
from memrt.runtime.manifest import sha256_of  # noqa: E402

WIDE = 256


@pytest.fixture
def fp32(tmp_path: Path) -> Path:
    path = tmp_path / "fp32.onnx"
    save_model(tiny_graph(width=WIDE), path)
    return path


def error(reference: Path, candidate: Path, outlier: float) -> float:
    held_out = [{name: value.copy() for name, value in feed.items()} for feed in feeds(5, seed=9, width=WIDE)]
    for feed in held_out:
        feed["x"][..., 0] *= outlier
    outputs = [[open_engine(path).run(feed) for feed in held_out] for path in (reference, candidate)]
    return compare(*outputs).relative_l2


def test_products_run_in_blocks_and_come_close(fp32: Path, tmp_path: Path) -> None:
    report = quantise_int8_blocks(fp32, tmp_path / "int8.onnx")
    assert report["fused"] == {OPERATOR: 2}
    assert report["nodes_kept_fp32"] == ["action_out_proj/Gemm"]  # the kernel adds no bias
    assert report["bytes_int8"] < 0.4 * report["bytes_fp32"]
    assert 0.0 < error(fp32, tmp_path / "int8.onnx", outlier=1.0) < 0.02


def test_an_outlier_costs_less_than_with_one_range_for_all(fp32: Path, tmp_path: Path) -> None:
    wild = [{**feed, "x": feed["x"].copy()} for feed in feeds(8, width=WIDE)]
    for feed in wild:
        feed["x"][..., 0] *= 100.0
    quantise_int8(fp32, tmp_path / "static.onnx", wild)
    quantise_int8_blocks(fp32, tmp_path / "blocks.onnx")
    blocks, static = (error(fp32, tmp_path / f"{name}.onnx", outlier=100.0) for name in ("blocks", "static"))
    assert blocks < 0.5 * static


def test_twice_gives_the_same_bytes(fp32: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        quantise_int8_blocks(fp32, tmp_path / f"{name}.onnx")
    assert sha256_of(tmp_path / "a.onnx") == sha256_of(tmp_path / "b.onnx")


def test_too_much_left_out_is_refused(fp32: Path, tmp_path: Path) -> None:
    with pytest.raises(MemrtError, match="nothing to quantise"):
        quantise_int8_blocks(fp32, tmp_path / "int8.onnx", exclude=["*"])
