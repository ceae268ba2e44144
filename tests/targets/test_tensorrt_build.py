"""Engines built by NVIDIA's ahead-of-time compiler, without a GPU, and the audit that refuses silent fallbacks."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("onnx")
pytest.importorskip("tensorrt_rtx")

from products import ELEMENTS, ROWS, write_product

from memrt.export.tensorrt_build import audit_engine, build_engine_file, scheme_bytes
from memrt.runtime.bundle import sha256_of
from memrt.runtime.engine import tensorrt_builder
from memrt.runtime.engine.tensorrt_builder import BuildReport
from memrt.runtime.engine.tensorrt_profiles import length_profiles
from memrt.runtime.engine.tensorrt_worker import precision_warnings, read_layers
from memrt.runtime.errors import MemrtError

PROFILES = length_profiles({"x": ("tokens", ROWS)}, [1, 128, 512])
SMS = (86, 89, 120)


def built(folder: Path, kind: str, *, sm=SMS, profiles=PROFILES, progress=None) -> BuildReport:
    graph = write_product(folder / f"{kind}.onnx", kind)
    out = folder / f"{kind}.rtx"
    return build_engine_file(graph, out, backend="tensorrt_rtx", sm=sm, profiles=profiles, progress=progress)


@pytest.fixture(scope="module")
def fp16(tmp_path_factory: pytest.TempPathFactory) -> BuildReport:
    return built(tmp_path_factory.mktemp("fp16"), "fp16")


@pytest.mark.parametrize(
    ("kind", "sm", "held"),
    [("int8", SMS, "Int8"), ("int4", SMS, "Int4"), ("fp8", (89, 120), "FP8")],
)
def test_every_scheme_is_stored_as_planned(tmp_path: Path, kind: str, sm: tuple[int, ...], held: str) -> None:
    report = built(tmp_path, kind, sm=sm)
    engine = tmp_path / f"{kind}.rtx"
    assert (report.engine_bytes, report.sha256) == (engine.stat().st_size, sha256_of(engine))
    assert (report.sm, report.profiles, report.backend) == (sm, 3, "tensorrt_rtx")
    assert report.weight_types[held] == len(PROFILES) * ELEMENTS
    assert report.peak_bytes > ELEMENTS
    audit = audit_engine("hl/decoder", report, {kind: ELEMENTS})
    assert audit.held_share[kind] > 0.98
    assert audit.held_bytes == report.weights_bytes
    assert list(tmp_path.glob(".*")) == []


def test_building_again_says_what_it_does_and_gives_the_same_bytes(tmp_path: Path, fp16: BuildReport) -> None:
    lines: list[str] = []
    assert built(tmp_path, "fp16", progress=lines.append).sha256 == fp16.sha256
    assert lines[0] == "reading fp16.onnx"
    assert len(lines) > 2


def test_an_engine_wider_than_its_plan_is_refused(fp16: BuildReport) -> None:
    with pytest.raises(MemrtError, match=r"wider type than its plan: expected int8 100\.0%, found .*fp16 100\.0%"):
        audit_engine("hl/decoder", fp16, {"int8": ELEMENTS})
    with pytest.raises(MemrtError, match=r"wider type than its plan"):
        audit_engine("hl/decoder", fp16, {"fp16": ELEMENTS // 4, "int4": 3 * ELEMENTS // 4})
    real_size = msgspec.structs.replace(fp16, weights_bytes=8_000_000_000, weight_types={})
    with pytest.raises(MemrtError, match=r"holds more weights than its plan.*about 2062\.5 MB.*found 8000\.0 MB"):
        audit_engine("hl/decoder", real_size, {"int4": 4_000_000_000})


def test_an_fp32_product_that_tensorrt_narrows_is_found(tmp_path: Path) -> None:
    report = built(tmp_path, "fp32_between_casts", sm=(86,))
    assert report.weight_types["Half"] == len(PROFILES) * ELEMENTS
    with pytest.raises(MemrtError, match="does not keep in fp32 what its plan keeps"):
        audit_engine("hl/decoder", report, {"fp32": ELEMENTS})
    assert audit_engine("hl/decoder", report, {"fp32": ELEMENTS}, allow_narrowed=True).narrowed_share > 0.99
    kept = built(tmp_path, "fp32_output", sm=(86,))
    assert audit_engine("hl/decoder", kept, {"fp32": ELEMENTS}).narrowed_share < 1e-3


def test_an_operator_it_does_not_know_is_named(tmp_path: Path) -> None:
    with pytest.raises(MemrtError, match=r"refuses the graph .*node `layers\.3\.qkv/MatMulNBits`"):
        built(tmp_path, "unknown_operator")
    assert not (tmp_path / "unknown_operator.rtx").exists()


def test_a_scheme_the_gpu_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MemrtError, match="cannot build fp8"):
        built(tmp_path, "fp8", sm=(86,))


@pytest.mark.parametrize(
    ("profiles", "found"),
    [
        ((), "no profile, but the dynamic inputs x"),
        (length_profiles({"z": ("tokens", 4)}, [4]), "profile 0 names `z`, which is no input"),
        (length_profiles({"x": ("tokens", 4)}, [4]), "[1, 4] to [4, 4], the graph has [-1, 512]"),
    ],
)
def test_profiles_that_do_not_fit_are_refused(tmp_path: Path, profiles, found: str) -> None:
    with pytest.raises(MemrtError, match="profiles of fp16") as refusal:
        built(tmp_path, "fp16", profiles=profiles)
    assert found in str(refusal.value)


@pytest.mark.parametrize("sm", [(), (87,), (86, 90)])
def test_gpus_it_cannot_build_for_are_refused_before_the_build(tmp_path: Path, sm: tuple[int, ...]) -> None:
    with pytest.raises(MemrtError, match="expected some of SM 75, 80, 86, 89, 120, 121"):
        built(tmp_path, "fp16", sm=sm)


def test_full_tensorrt_takes_no_gpu_list_and_is_missing_here(tmp_path: Path, monkeypatch) -> None:
    graph, out = write_product(tmp_path / "fp16.onnx", "fp16"), tmp_path / "fp16.engine"
    with pytest.raises(MemrtError, match="builds for the GPU of the computer"):
        build_engine_file(graph, out, backend="tensorrt", sm=[87], profiles=PROFILES)
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "tensorrt.py").write_text("raise ImportError('no TensorRT here')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "shadow"))
    with pytest.raises(MemrtError, match=r"TensorRT is not available.*no TensorRT here.*memrt\[tensorrt\]"):
        build_engine_file(graph, out, backend="tensorrt", profiles=PROFILES)


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL, probably out of memory"),
        ("import os; os.abort()", "SIGABRT"),
        ("import sys; print('stack smashed', file=sys.stderr); sys.exit(3)", "exit status 3: stack smashed"),
        ("print('not an event')", "exit status 0"),
    ],
)
def test_a_crash_is_one_error(tmp_path: Path, monkeypatch, program: str, found: str) -> None:
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}"\n')
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(tensorrt_builder.sys, "executable", str(tmp_path / "python"))
    graph = write_product(tmp_path / "fp16.onnx", "fp16")
    with pytest.raises(MemrtError, match="builder crashed on fp16") as refusal:
        build_engine_file(graph, tmp_path / "fp16.rtx", backend="tensorrt_rtx", sm=[86], profiles=PROFILES)
    assert found in str(refusal.value)


def test_reads_the_types_of_compiled_layers() -> None:
    text = (
        "Layers:\nName: a_myl0_0, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [1,2], Datatype: Half }], "
        "Constants: [ { Name: c, Dimensions: [3,4], Strides: [4,1], Datatype: Int8, Format: x }, { Name: d, "
        "Dimensions: [4], Datatype: Half }], Outputs: [ { Name: y, Dimensions: [9,9], Datatype: Float }]\n"
        "Name: b_myl0_1, LayerType: kgen, Inputs: [], Constants: [], Outputs: []\n"
    )
    assert read_layers(text) == (2, {"Half": 4, "Int8": 12})
    assert read_layers("something else") == (0, {})


def test_warnings_about_precision_are_picked_out() -> None:
    warnings = ["Falling back to FP32 for layer 3", "a slow tactic", "Falling back to FP32\n for layer 3"]
    assert precision_warnings(warnings) == ("Falling back to FP32 for layer 3",)


def test_bytes_by_scheme_count_the_scales() -> None:
    assert scheme_bytes({"fp32": 1000, "bf16": 1000, "int8": 1000}) == 7000
    assert scheme_bytes({"int4": 128 * 64}) == 64 * (64 + 2)
    assert scheme_bytes({"nvfp4": 16 * 8}) == 8 * (8 + 1)
