"""`memrt bench decode` on tiny VLMs: what it reports, and that ours answers what transformers does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from memrt.export.bench import decode
from memrt.runtime.bench import hardware
from memrt.runtime.cli import build_app
from memrt.runtime.errors import MemrtError
from memrt.runtime.statistics import median

pytest.importorskip("transformers")

NAMES = {"ours", "transformers_bf16", "transformers_fp32"}


def test_report(work: Path) -> None:
    size, precision = "qwen3-vl-tiny", "int4"
    arguments = ["--size", size, "--precision", precision, "--runs", "2", "--tokens", "4", "--threads", "1"]
    command = ["bench", "decode", *arguments, "--work", str(work), "--json"]
    result = CliRunner().invoke(build_app(), command, catch_exceptions=False)
    report = json.loads(result.stdout)
    expected = {"bench": "decode", "size": size, "tokens": 4, "runs": 2, "precision": precision, "measured_on": "CPU"}
    assert expected.items() <= report.items()
    for name in NAMES:
        times = report["all_runs_ms"][name]
        assert [len(times[part]) for part in ("prefill", "per_token")] == [2, 2]
        assert report[f"{name}_ms"] == pytest.approx(median(times["per_token"]), abs=1e-4)
        assert report["tokens_per_s"][name] == pytest.approx(1000 / report[f"{name}_ms"], rel=1e-2)
    peers = {name: report[f"{name}_ms"] for name in NAMES - {"ours"}}
    assert report["peer"] == min(peers, key=peers.__getitem__)
    assert report["speedup"]["transformers"] == pytest.approx(min(peers.values()) / report["ours_ms"], abs=1e-3)
    assert 1e-5 < report["relative_l2"] < 0.15  # int4, and nothing worse
    assert report["compared_with"] == "transformers_fp32"
    assert 0.0 <= report["identical_tokens"] <= 1.0
    assert report["not_run"] == {}


def test_fp32_is_left_out_where_it_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = decode.BenchVlm.open("qwen3-vl-4b")
    assert model.elements == pytest.approx(4.44e9, rel=0.02)
    needed = decode.needed_bytes(model, "int4")
    groups, left_out = decode.group(needed, 16 * hardware.GIB)
    assert groups == [["ours", "transformers_bf16"]]
    assert list(left_out) == ["transformers_fp32"]


def test_refusals(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(size: str) -> str:
        result = CliRunner().invoke(build_app(), ["bench", "decode", "--work", str(work), "--size", size])
        assert isinstance(result.exception, MemrtError)
        assert result.stdout == ""
        return str(result.exception)

    assert "size of the VLM: expected one of qwen3-vl-4b" in refused("gpt")
    monkeypatch.setattr(hardware, "available_bytes", lambda: 4 * hardware.GIB)
    assert "too little memory for bench decode --size qwen2.5-vl-7b: expected" in refused("qwen2.5-vl-7b")
