"""A bundle that fails its behaviour gate never gets its name; one that passes says so in its manifest and report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from memrt.calib.calibration_set import reference_set
from memrt.export import pipeline
from memrt.export.pipeline import export_policy
from memrt.runtime.bundle import load_bundle
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import EngineRecord

PASSED = {"gate": "sim", "success_rate": 1.0, "lost": {"paired95": [-0.03, 0.04]}, "threshold": {"most_lost": 0.1}}


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A weights folder, and an export whose graphs are made in no time; all that follows them is the real thing."""

    def low_level(export: Any, staging: Path, work: Path) -> None:
        (staging / "ll").mkdir()
        (staging / "ll" / "step.onnx").write_bytes(export._precision.encode())
        gate = {"cosine": 1.0, "relative_l2": 0.0, "threshold": {"cosine": 0.99, "relative_l2": 0.1}, "bytes": 4}
        export._engines["ll/step"] = EngineRecord(
            file="ll/step.onnx", precision=export._precision, inputs=(), outputs=(), gate=gate
        )

    monkeypatch.setattr(pipeline._Export, "_low_level", low_level)
    root = tmp_path / "weights"
    (root / "low_level").mkdir(parents=True)
    (root / "low_level" / "config.json").write_text("{}")
    yield root
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []  # no staging left


def export(weights: Path, **options: Any) -> Path:
    return export_policy(
        "oracle_simple", weights.parent / "bundle", weights_root=weights, calibration=reference_set(), **options
    ).path


def test_nothing_is_written_when_behaviour_is_refused(weights: Path) -> None:
    seen: list[str] = []

    def refuse(candidate: Path, reference: Path) -> dict[str, Any]:
        seen.extend(load_bundle(folder).manifest.precision for folder in (candidate, reference))
        raise MemrtError("behaves badly", expected="well", found="badly", fix="better")

    with pytest.raises(MemrtError, match="behaves badly"):
        export(weights, behaviour=refuse)
    assert seen == ["int8", "fp32"]
    assert [path.name for path in weights.parent.iterdir()] == ["weights"]


def test_an_older_bundle_survives_a_refusal(weights: Path) -> None:
    older = load_bundle(export(weights)).manifest

    def refuse(candidate: Path, reference: Path) -> dict[str, Any]:
        raise MemrtError("behaves badly", expected="well", found="badly", fix="better")

    with pytest.raises(MemrtError, match="behaves badly"):
        export(weights, behaviour=refuse)
    assert load_bundle(weights.parent / "bundle").manifest == older


def test_a_passed_gate_is_in_the_manifest_and_the_report(weights: Path) -> None:
    bundle = load_bundle(export(weights, behaviour=lambda candidate, reference: PASSED))
    assert bundle.manifest.sources["gates"]["sim"] == PASSED
    report = json.loads(bundle.file("report.json").read_text())
    assert report["gates"]["sim"] == PASSED
    assert [engine["name"] for engine in report["engines"]] == ["ll/step"]
    for name in ("report.html", "report.json", "manifest.json"):
        assert str(weights.parent) not in (bundle.path / name).read_text()


def test_exporting_again_gives_the_same_bytes(weights: Path) -> None:
    first, second = (
        load_bundle(export(weights, behaviour=lambda candidate, reference: PASSED)).manifest for _ in range(2)
    )
    assert first == second
    assert {"report.html", "report.json"} < first.files.keys()


def test_fp32_has_nothing_to_be_compared_with(weights: Path) -> None:
    with pytest.raises(MemrtError, match="nothing to compare"):
        export(weights, behaviour=lambda candidate, reference: PASSED, precision="fp32")
