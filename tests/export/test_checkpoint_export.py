"""Checkpoints to bundles: proven, the same bytes every time, resumable, and never half there."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from memrt.export.checkpoint_export import Request, export_checkpoints
from memrt.runtime.bundle import load_bundle
from memrt.runtime.device_engines import prove, this_device
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.low_level_session import LowLevelSession
from memrt.runtime.policy.vlm_session import VlmSession
from memrt.runtime.recipe import read_recipes


class InterruptedExportError(Exception):
    """Stands for Ctrl-C."""


def request(out: Path, **changes) -> Request:
    settings = {"checkpoint": "random:pi05-tiny", "samples": 16, "threads": 1}
    return Request(out=out, **(settings | changes))


@pytest.fixture(scope="module")
def low_level(tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "bundle"
    lines: list[str] = []
    return export_checkpoints(request(out), lines.append), lines


@pytest.fixture(scope="module")
def high_level(tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "bundle"
    return export_checkpoints(request(out, checkpoint="random:qwen3-vl-tiny", adapter="random:r4"))


def test_low_level_bundle_is_whole_and_runs(low_level):
    bundle, _ = low_level
    loaded = load_bundle(bundle.path)
    assert set(loaded.manifest.engines) == {"ll/vision", "ll/prefix", "ll/step"}
    session = LowLevelSession.open(bundle)
    size, model = session.model.image_size, session.model
    noise = np.zeros((model.horizon, model.action_dim), np.float32)
    found = session.denoise([np.zeros((size, size, 3), np.uint8)], np.array([2, 5, 7]), noise)
    assert np.isfinite(found.actions).all()
    session.close()


def test_gates_say_what_was_asked_and_that_it_was_a_rehearsal(low_level):
    manifest = load_bundle(low_level[0].path).manifest
    for engine in manifest.engines.values():
        assert engine.gate["label"] == "rehearsal: random weights"
        assert engine.gate["relative_l2"] <= engine.gate["threshold"]["relative_l2"]
        assert engine.gate["emulated"]["relative_l2"] == pytest.approx(engine.gate["relative_l2"], rel=1e-3)
        # ONNX Runtime's int8 kernels are exact; fused norms and rotations add in another order, and a value on the edge
        # between two steps of an activation then falls to the other side: how many do depends on the CPU. Wrong codes
        # cost as much as the quantisation itself, some 0.05.
        assert engine.gate["plan"]["relative_l2"] < 2e-3
    assert set(manifest.sources["gates"]) == {"ll/chain", "ll/gripper"}
    report = json.loads((low_level[0].path / "report.json").read_text())
    weights = {damage["weight"] for engine in report["engines"] for damage in engine["damages"]}
    assert "layers.2.gate_up.weight" in weights
    assert "action_in.weight" not in weights  # the target keeps it in fp32


def test_device_gate_reproduces_the_golden_samples(low_level, high_level, tmp_path):
    for bundle in (low_level[0], high_level):
        proof = prove(bundle, this_device(bundle), cache=tmp_path / bundle.manifest.name)
        assert set(proof.engines) == set(bundle.manifest.engines)


def test_a_killed_export_leaves_nothing_under_the_final_name_and_goes_on_to_the_same_bytes(low_level, tmp_path):
    out = tmp_path / "bundle"
    code = (
        "import sys; from pathlib import Path; from functools import partial;"
        "from memrt.export.checkpoint_export import Request, export_checkpoints;"
        "request = Request(out=Path(sys.argv[1]), checkpoint='random:pi05-tiny', samples=16, threads=1);"
        "export_checkpoints(request, partial(print, flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(out)], stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout:
            if line.startswith("ll/prefix"):
                break
        child.kill()
    assert child.returncode == -signal.SIGKILL
    assert not out.exists()
    lines: list[str] = []
    bundle = export_checkpoints(request(out), lines.append)
    assert {"going on with an interrupted export", "ll/vision: finished by an earlier run"} <= set(lines)
    assert bundle.manifest.files == low_level[0].manifest.files
    assert (bundle.path / "manifest.json").read_bytes() == (low_level[0].path / "manifest.json").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_another_input_does_not_go_on_with_it(tmp_path):
    out = tmp_path / "bundle"

    def stop(line: str) -> None:
        if line.startswith("ll/prefix"):
            raise InterruptedExportError

    with pytest.raises(InterruptedExportError):
        export_checkpoints(request(out), stop)
    assert not out.exists()
    lines: list[str] = []

    def stop_again(line: str) -> None:
        lines.append(line)
        if line.startswith("ll/vision"):
            raise InterruptedExportError

    with pytest.raises(InterruptedExportError):
        export_checkpoints(request(out, checkpoint="random:pi05-tiny:1"), stop_again)
    assert "going on with an interrupted export" not in lines


def test_high_level_bundle_answers(high_level):
    session = VlmSession.open(high_level)
    answer = session.generate("You help.", "<image>What next?", [np.zeros((256, 256, 3), np.uint8)], 4)
    assert answer.new_tokens >= 1
    session.close()
    decoder = load_bundle(high_level.path).manifest.engines["hl/decoder"]
    assert decoder.precision == "int4"
    assert decoder.gate["plan"]["relative_l2"] < 0.1


def test_a_failed_gate_names_the_worst_layer_and_writes_a_plan(tmp_path, monkeypatch):
    from memrt.export import gate_thresholds

    strict = {"*": gate_thresholds.Threshold(cosine=0.999, relative_l2=0.02)}
    monkeypatch.setitem(gate_thresholds.THRESHOLDS, "int8", strict)
    out = tmp_path / "bundle"
    with pytest.raises(MemrtError, match=r"ll/vision .* hurts most.*--plan") as caught:
        export_checkpoints(request(out))
    assert not out.exists()
    plan = tmp_path / "bundle.plan.yaml"
    assert str(plan) in str(caught.value)
    assert "blocks." in plan.read_text()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"checkpoint": "random:gpt"}, "checkpoint random:gpt"),
        ({"checkpoint": "/nowhere/at/all"}, "nothing there"),
        ({"adapter": "random:r4"}, "a Qwen VLM, which --adapter"),
        ({"checkpoint": "random:qwen3-vl-tiny", "pretrained": "random:qwen3-vl-tiny"}, "the fine-tuned share together"),
        ({"target": "rtx", "precision": "fp32"}, "does not run this precision"),
        ({"target": "orin", "memory_gib": 4.1}, "does not fit the device"),
        ({"target": "nowhere"}, "unknown target"),
    ],
)
def test_refusals_come_first_and_leave_nothing(tmp_path, changes, line):
    with pytest.raises(MemrtError, match=line) as caught:
        export_checkpoints(request(tmp_path / "bundle", **changes))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_jetson_gets_graphs_and_recipes(tmp_path):
    bundle = load_bundle(export_checkpoints(request(tmp_path / "bundle", target="orin")).path)
    assert (bundle.manifest.target, bundle.manifest.precision) == ("orin", "int8")
    recipes = read_recipes(bundle)
    assert set(recipes) == set(bundle.manifest.engines)
    assert [len(recipes[name].profiles) for name in ("ll/vision", "ll/prefix", "ll/step")] == [0, 1, 1]
    assert not [name for name in bundle.manifest.files if "proof" in name]
    for recipe in recipes.values():
        graph = onnx.load(str(bundle.file(recipe.graph)), load_external_data=False)
        assert graph.opset_import[0].version == 23
        assert {tensor.data_location for tensor in graph.graph.initializer} >= {onnx.TensorProto.EXTERNAL}


def test_an_rtx_gets_engines(tmp_path):
    pytest.importorskip("tensorrt_rtx")
    bundle = load_bundle(export_checkpoints(request(tmp_path / "bundle", target="rtx")).path)
    assert {Path(engine.file).suffix for engine in bundle.manifest.engines.values()} == {".rtx"}
    assert not [name for name in bundle.manifest.files if ".onnx" in name]
    for engine in bundle.manifest.engines.values():
        assert engine.gate["build"]["sm"] == [86, 89, 120]
        assert engine.gate["build"]["audit"]["narrowed_share"] < 0.001


def test_the_step_for_real_time_chunking_keeps_a_clean_beginning(tmp_path):
    bundle = export_checkpoints(request(tmp_path / "bundle", step_rtc=True))
    assert set(bundle.manifest.engines) == {"ll/vision", "ll/prefix", "ll/step", "ll/step_rtc"}
    session = LowLevelSession.open(bundle)
    model = session.model
    begun = np.linspace(-1, 1, 2 * model.action_dim, dtype=np.float32).reshape(2, -1)
    noise = np.ones((model.horizon, model.action_dim), np.float32)
    found = session.denoise([], np.array([2, 5, 7]), noise, prefix_actions=begun)
    np.testing.assert_array_equal(found.actions[:2], begun)
    assert not np.array_equal(found.actions[2:], session.denoise([], np.array([2, 5, 7]), noise).actions[2:])
    session.close()
