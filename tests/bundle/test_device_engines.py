"""Engines built on a device: their cache, its refusals, the device gate. No GPU: the build is replaced."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from memrt.runtime import device_engines  # noqa: E402
from memrt.runtime.bundle import Bundle, EngineRecord, load_bundle, write_bundle  # noqa: E402
from memrt.runtime.config import load_policy  # noqa: E402
from memrt.runtime.device_cache import DeviceInfo, default_cache, device_folder, this_cpu  # noqa: E402
from memrt.runtime.device_engines import (  # noqa: E402
    build_engines,
    engine_files,
    prove,
    proven,
    require_proven,
    this_device,
)
from memrt.runtime.engine import OnnxRuntimeEngine  # noqa: E402
from memrt.runtime.engine.tensorrt_builder import BuildReport  # noqa: E402
from memrt.runtime.engine.tensorrt_profiles import length_profiles  # noqa: E402
from memrt.runtime.errors import MemrtError  # noqa: E402
from memrt.runtime.recipe import Recipe, write_recipe  # noqa: E402

ORIN = DeviceInfo(backend="tensorrt", version="10.7.0", name="Orin (nvgpu)", sm=87, driver="12.6")
X = np.arange(6, dtype=np.float32).reshape(2, 3)


def make_bundle(folder: Path, *, with_recipe: bool, factor: float = 2.0, golden: float = 2.0) -> Bundle:
    """One engine y = factor * x, whose golden samples say y = golden * x."""
    staging = folder.with_name(f"{folder.name}.staging")
    (staging / "ll").mkdir(parents=True)
    (staging / "golden").mkdir()
    spec = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["rows", 3]) for n in ("x", "y")]
    node = onnx.helper.make_node("Mul", ["x", "f"], ["y"], name="scale/Mul")
    constant = onnx.numpy_helper.from_array(np.asarray(factor, np.float32), "f")
    graph = onnx.helper.make_graph([node], "main", spec[:1], spec[1:], [constant])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10),
        str(staging / "ll" / "step.onnx"),
    )
    np.savez(staging / "golden" / "ll_step.npz", **{"0/in/x": X, "0/out/y": golden * X})
    if with_recipe:
        profiles = length_profiles({"x": ("rows", 3)}, [1, 8])
        recipe = Recipe(
            engine="ll/step",
            graph="ll/step.onnx",
            precision="fp16",
            profiles=profiles,
            workspace_bytes=1 << 20,
            weights_bytes=1000,
            timing_cache="orin",
        )
        write_recipe(staging, recipe)
    gate = {"golden": "golden/ll_step.npz", "threshold": {"cosine": 0.999, "relative_l2": 0.01}}
    engine = EngineRecord(file="ll/step.onnx", precision="fp16", inputs=(), outputs=(), gate=gate)
    policy = load_policy("am_grounded")
    return write_bundle(staging, folder, policy=policy, precision="int8", engines={"ll/step": engine})


class Builder:
    """Stands for the build: copies the graph, reports `weights_bytes`."""

    def __init__(self, weights_bytes: int | None = 900) -> None:
        self.weights_bytes, self.calls = weights_bytes, 0

    def __call__(self, graph: Path, out: Path, *, backend, profiles, workspace_bytes, timing_cache, progress):
        self.calls += 1
        progress("compiling")
        assert (backend, len(profiles), workspace_bytes) == ("tensorrt", 2, 1 << 20)
        assert timing_cache.name == "orin-sm87-10.7.0.timing"
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(graph, out)
        content = out.read_bytes()
        return BuildReport(
            backend="tensorrt",
            version="10.7.0",
            sm=(),
            engine_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            seconds=1.0,
            peak_bytes=5,
            weights_bytes=self.weights_bytes,
            weight_types={},
            layers=1,
            profiles=2,
            warnings=(),
            precision_warnings=(),
        )


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return make_bundle(tmp_path / "policy", with_recipe=True)


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opens what `Builder` made: an ONNX file under an engine's name."""

    def opened(path: Path, *, threads: int, runtime_cache: Path | None) -> OnnxRuntimeEngine:
        return OnnxRuntimeEngine(path, threads=threads)

    monkeypatch.setattr(device_engines, "open_engine", opened)


def test_a_cpu_bundle_is_proven_as_it_is(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "policy", with_recipe=False)
    device = this_device(bundle)
    assert device == this_cpu()
    assert proven(bundle) is None
    assert build_engines(bundle, device) is None
    proof = prove(bundle, device)
    assert proven(bundle) == proof
    assert proof.agreement["ll/step"]["samples"] == 1
    assert load_bundle(bundle.path).manifest == bundle.manifest  # its set of files did not change


def test_without_a_proof_for_this_device_nothing_is_armed(bundle: Bundle, on_device: None, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    build_engines(bundle, ORIN, cache=cache, builder=Builder())
    with pytest.raises(MemrtError, match=r"policy is not yet proven on device.*Fix: run memrt build .*policy --cache"):
        require_proven(bundle, ORIN, cache=cache)
    proof = prove(bundle, ORIN, cache=cache)
    assert require_proven(bundle, ORIN, cache=cache) == proof
    with pytest.raises(MemrtError, match=r"driver 12\.9.*found none for this device, its driver"):
        require_proven(bundle, msgspec.structs.replace(ORIN, driver="12.9"), cache=cache)


def test_a_wrong_engine_is_not_proven(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "policy", with_recipe=False, golden=2.1)
    with pytest.raises(MemrtError, match="ll/step does not reproduce its golden outputs"):
        prove(bundle, this_cpu())
    assert proven(bundle) is None


def test_engines_are_built_once_into_a_cache_beside_the_bundle(bundle: Bundle, on_device: None) -> None:
    builder, lines = Builder(), []
    first = build_engines(bundle, ORIN, builder=builder, progress=lines.append)
    assert first is not None
    assert build_engines(bundle, ORIN, builder=builder) == first
    assert builder.calls == 1
    assert lines[:2] == ["ll/step: building (fp16)", "ll/step: compiling"]
    folder = device_folder(default_cache(bundle), bundle, ORIN)
    assert folder.parent == bundle.path.with_name("policy.engines")
    assert folder.name.endswith("-orin-nvgpu-tensorrt-10-7-0")
    assert engine_files(bundle, ORIN) == {"ll/step": folder / "ll_step.engine"}
    load_bundle(bundle.path)
    proof = prove(bundle, ORIN)
    assert proven(bundle, ORIN) == proof
    build_engines(bundle, ORIN, builder=builder, rebuild=True)
    assert builder.calls == 2
    assert proven(bundle, ORIN) is None  # the proof went with the engines it was about


def test_a_proof_is_for_one_driver_but_engines_serve_the_next(bundle: Bundle, on_device: None) -> None:
    build_engines(bundle, ORIN, builder=Builder())
    prove(bundle, ORIN)
    updated = msgspec.structs.replace(ORIN, driver="12.9")
    assert proven(bundle, updated) is None
    assert engine_files(bundle, updated) == engine_files(bundle, ORIN)
    assert prove(bundle, updated).device == updated


@pytest.mark.parametrize("change", [{"name": "Thor"}, {"version": "10.8.0"}])
def test_engines_for_something_else_are_refused_not_rebuilt(bundle: Bundle, change: dict) -> None:
    build_engines(bundle, ORIN, builder=Builder())
    other = msgspec.structs.replace(ORIN, **change)
    with pytest.raises(MemrtError, match="not built for this computer") as refusal:
        engine_files(bundle, other)
    assert f"found engines for {ORIN.describe()}" in str(refusal.value)
    assert f"run memrt build {bundle.path}" in str(refusal.value)


def test_before_a_build_there_is_nothing_to_run(bundle: Bundle) -> None:
    with pytest.raises(MemrtError, match="found none"):
        engine_files(bundle, ORIN)


def test_a_changed_engine_is_refused_until_it_is_rebuilt_on_request(bundle: Bundle, on_device: None) -> None:
    builder = Builder()
    build_engines(bundle, ORIN, builder=builder)
    prove(bundle, ORIN)
    engine = engine_files(bundle, ORIN)["ll/step"]
    engine.write_bytes(engine.read_bytes() + b"\0")
    for attempt in (build_engines, engine_files, proven):
        with pytest.raises(MemrtError, match=r"do not match \(ll/step, SHA-256\).*--rebuild"):
            attempt(bundle, ORIN)
    engine.unlink()
    with pytest.raises(MemrtError, match="found no file"):
        build_engines(bundle, ORIN, builder=builder)
    assert builder.calls == 1
    build_engines(bundle, ORIN, builder=builder, rebuild=True)
    assert prove(bundle, ORIN).engines


def test_a_record_of_another_bundle_or_device_is_refused(bundle: Bundle) -> None:
    build_engines(bundle, ORIN, builder=Builder())
    path = device_folder(default_cache(bundle), bundle, ORIN) / "engines.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"bundle": "0" * 64}))
    with pytest.raises(MemrtError, match=r"do not match \(bundle\)"):
        engine_files(bundle, ORIN)
    path.write_text(json.dumps(record | {"device": record["device"] | {"sm": 72}}))
    with pytest.raises(MemrtError, match=r"do not match \(device\): expected Orin \(nvgpu\) \(SM 87.*found .*SM 72"):
        engine_files(bundle, ORIN)
    path.write_text("{")
    with pytest.raises(MemrtError, match="expected a JSON object"):
        engine_files(bundle, ORIN)


def test_another_bundle_finds_nothing_in_the_same_cache(bundle: Bundle, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    build_engines(bundle, ORIN, cache=cache, builder=Builder())
    other = make_bundle(tmp_path / "other", with_recipe=True, factor=3.0)
    with pytest.raises(MemrtError, match="found none"):
        engine_files(other, ORIN, cache=cache)


@pytest.mark.parametrize("weights_bytes", [4_000_000, None])
def test_a_silent_fallback_leaves_no_record(bundle: Bundle, monkeypatch, weights_bytes: int | None) -> None:
    monkeypatch.setattr(device_engines, "WEIGHT_SLACK_BYTES", 0)
    builder = Builder(weights_bytes)
    if weights_bytes is None:  # then the engine's size counts
        monkeypatch.setattr(device_engines, "WEIGHT_SLACK", 0.01)
    with pytest.raises(MemrtError, match="ll/step was not built in fp16"):
        build_engines(bundle, ORIN, builder=builder)
    with pytest.raises(MemrtError, match="found none"):
        engine_files(bundle, ORIN)


def test_kernels_compiled_on_first_use_are_kept_beside_the_proof(bundle: Bundle) -> None:
    card = DeviceInfo(backend="tensorrt_rtx", version="1.7.1.116", name="GeForce RTX 4090", sm=89, driver="13.0")
    kept = device_engines.kernel_cache(bundle, card, "hl/decoder")
    assert kept == device_folder(default_cache(bundle), bundle, card) / "hl_decoder.kernels"
    assert device_engines.kernel_cache(bundle, ORIN, "hl/decoder") is None


def test_a_bundle_without_golden_samples_cannot_be_proven(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "policy", with_recipe=False)
    engine = msgspec.structs.replace(bundle.manifest.engines["ll/step"], gate={"cosine": 1.0})
    changed = msgspec.structs.replace(bundle.manifest, engines={"ll/step": engine})
    with pytest.raises(MemrtError, match="cannot be proven"):
        prove(replace(bundle, manifest=changed), this_cpu())


def test_a_cache_that_cannot_be_written_is_refused_before_the_work(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for attempt in (build_engines, prove):
        with pytest.raises(MemrtError, match=r"expected a folder that can be written.*--cache"):
            attempt(bundle, ORIN, cache=tmp_path / "file" / "cache")


def test_without_tensorrt_a_device_bundle_is_refused_in_one_line(bundle: Bundle, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(MemrtError, match=r"TensorRT is not available.*memrt\[tensorrt\]"):
        this_device(bundle)
