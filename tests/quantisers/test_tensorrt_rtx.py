"""Every scheme in every compute type passes NVIDIA's own parser and ahead-of-time compiler. Needs no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from product_graphs import WIDTH, quantised, save
from rtx_engine import engine_bytes

from memrt.export.quantisers.activations import Activation
from memrt.export.quantisers.packed import Compute, Scheme

pytest.importorskip("tensorrt_rtx")

FP8_SMS, FP4_SMS, ALL_SMS = ("SM89", "SM120"), ("SM120",), ("SM86", "SM89", "SM120")
S8: Activation = ("s8", 4 / 127)
FP8: Activation = ("fp8", 4 / 448)
FP4: Activation = ("nvfp4", 4 / 2688)
CASES: list[tuple[Scheme, Activation | None, tuple[str, ...]]] = [
    ("int8", S8, ALL_SMS),
    ("int8", None, ALL_SMS),
    ("int4", None, ALL_SMS),
    ("fp8", FP8, FP8_SMS),
    ("fp8", None, FP8_SMS),
    ("nvfp4", None, FP4_SMS),
    ("nvfp4", FP4, FP4_SMS),
]
ENGINE_CODE = 1_000_000  # bytes of such a tiny engine that are not weights, at most; in 16 bits its weights had 3.1 MB


@pytest.mark.parametrize("compute", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize(("scheme", "activation", "sms"), CASES)
def test_it_builds_and_stays_small(
    scheme: Scheme, activation: Activation | None, sms: tuple[str, ...], compute: Compute, tmp_path: Path
) -> None:
    model, packed = quantised(scheme, activation=activation, compute=compute, width=2 * WIDTH, rows=8)
    path = save(model, tmp_path / "model.onnx")
    weights = sum(len(weight.to_bytes()) + len(weight.scale_bytes()) for weight in packed.values())
    for sm in sms:
        size = engine_bytes(path, (sm,))
        assert weights < size < weights + ENGINE_CODE, (sm, size, weights)


def test_fp8_is_refused_where_the_hardware_has_none(tmp_path: Path) -> None:
    model, _ = quantised("fp8", activation=FP8, compute="fp16", rows=8)
    assert engine_bytes(save(model, tmp_path / "model.onnx"), ("SM86",)) == 0


def test_unsigned_activations_are_for_onnxruntime_only(tmp_path: Path) -> None:
    model, _ = quantised("int8", activation=("u8", 8 / 255, 128), compute="fp16", rows=8)
    assert engine_bytes(save(model, tmp_path / "model.onnx"), ("SM120",)) == 0


def test_one_engine_serves_several_gpus(tmp_path: Path) -> None:
    model, _ = quantised("int4", compute="bf16", rows=8)
    assert engine_bytes(save(model, tmp_path / "model.onnx"), ALL_SMS) > 0
