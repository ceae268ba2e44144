"""`memrt bench high-level` on a tiny VLM: what it reports, and that ours answers what transformers does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from memrt.export.bench.vlm import BenchVlm
from memrt.runtime.bench.memer_calls import CALLS_PER_EVENT, STEADY, MemerCalls
from memrt.runtime.cli import build_app
from memrt.runtime.errors import MemrtError
from memrt.runtime.statistics import median

pytest.importorskip("transformers")

SIZE = "qwen3-vl-tiny"
PEERS = ("transformers_bf16", "transformers_fp32")
PARTS = ("vision", "prefill", "decode")
VARIANTS = ("without_reading_ahead", "without_reuse")


def run(work: Path, *arguments: str) -> dict[str, Any]:
    command = ["bench", "high-level", "--size", SIZE, "--threads", "1", "--work", str(work), "--json", *arguments]
    result = CliRunner().invoke(build_app(), command, catch_exceptions=False)
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def test_report(work: Path) -> None:
    report = run(work, "--calls", "2", "--tokens", "4")
    expected = {"bench": "high-level", "size": SIZE, "tokens": 4, "runs": 2, "precision": "int8", "measured_on": "CPU"}
    assert expected.items() <= report.items()
    times = {name: found["call"] for name, found in report["all_runs_ms"].items()}
    times |= {name: report["all_runs_ms"]["ours"][f"{name}_call"] for name in VARIANTS}
    for name, found in times.items():
        assert len(found) == 2
        assert report[f"{name}_ms"] == pytest.approx(median(found), abs=1e-3)
        assert report["mean_ms"][name] == pytest.approx(np.mean(found), abs=1e-3)
        assert set(report["parts_ms"][name]) == set(PARTS)
        assert sum(report["shares"][name].values()) == pytest.approx(1, abs=0.01)
    fastest = min(report[f"{name}_ms"] for name in PEERS)
    assert report[f"{report['peer']}_ms"] == fastest
    assert report["speedup"]["transformers"] == pytest.approx(fastest / report["ours_ms"], abs=2e-3)
    assert report["speedup"]["without_reuse"] == pytest.approx(report["without_reuse_ms"] / report["ours_ms"], abs=2e-3)
    before = report["all_runs_ms"]["ours"]["before"]
    assert report["before_the_call_ms"] == pytest.approx(median(before), abs=1e-3)
    assert report["total_ms"] > report["ours_ms"]
    assert report["speedup"]["total"] == pytest.approx(fastest / report["total_ms"], abs=2e-3)
    assert all(frames >= 15 for frames in report["frames"])
    for reused, prompt in zip(report["reused_tokens"], report["prompt_tokens"], strict=True):
        assert 0 < reused < prompt
    assert 1e-5 < report["relative_l2"] < 0.1  # int8, and nothing worse
    assert report["identical_tokens_without_reuse"] >= 0.75
    assert report["identical_tokens_without_reading_ahead"] >= 0.75
    assert report["compared_with"] == "transformers_fp32"
    assert report["decoder_layers"] == report["decoder_layers_of_the_full_model"] == 4


def test_an_episode_costs_at_its_end_what_it_costs_at_its_start(work: Path) -> None:
    report = run(work, "--minutes", "2", "--calls", "2", "--tokens", "2")
    assert report["calls_of_the_episode"] == 120
    for part in ("call", "memory"):
        for age, value in report[f"{part}_ms"].items():
            assert value == pytest.approx(median(report["all_runs_ms"][age][part]), abs=1e-3)
    old, young = report["call_ms"]["old"], report["call_ms"]["young"]
    assert report["ratio"]["call"] == pytest.approx(old / young, abs=1e-3)
    assert report["kept_frames"]["old"] == report["kept_frames"]["young"] > 0
    assert 0 < report["resident_mib"]["young"] < 400  # no torch in that process


def test_calls_follow_each_other_as_memers_do() -> None:
    calls = MemerCalls()
    calls.skip(STEADY)
    before, changes = calls.request(), 0
    for _ in range(4 * CALLS_PER_EVENT):
        calls.answered()
        request = calls.request()
        assert request.recent[:5] == before.recent[3:]  # three of eight are new
        assert len(request.keyframes) in (7, 8)  # one may be among the recent frames still
        assert request.user.count("<image>") == len(request.keyframes) + len(request.recent)
        changes += request.keyframes != before.keyframes
        before = request
    assert 4 <= changes <= 8  # a keyframe leaves, and one comes, for each event


def test_fewer_decoder_layers() -> None:
    whole, cut = BenchVlm.open(SIZE), BenchVlm.open(SIZE, layers=2)
    assert (whole.settings.layers, cut.settings.layers) == (4, 2)
    assert cut.elements < whole.elements
    missing = set(whole.weight_names()) - set(cut.weight_names())
    assert missing
    assert all(
        name.startswith(("model.language_model.layers.2.", "model.language_model.layers.3.")) for name in missing
    )
    with pytest.raises(MemrtError, match="layers of the decoder: expected 2 to 4, found 1"):
        BenchVlm.open(SIZE, layers=1)


def test_the_reference_size_has_the_reference_weights() -> None:
    model = BenchVlm.open("reference")
    assert model.settings.image_sizes[0].tokens == 64
    assert model.elements == pytest.approx(3.9e6, rel=0.1)
