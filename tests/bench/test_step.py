"""`memrt bench step` on a tiny π0.5: what it reports, and that ours computes what PyTorch does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from memrt.export.bench import call
from memrt.export.bench.pi05 import BenchPi05
from memrt.export.bench.race import Race
from memrt.runtime.bench import hardware
from memrt.runtime.cli import build_app
from memrt.runtime.errors import MemrtError
from memrt.runtime.statistics import median
from memrt.train.pi05.model import Pi05
from memrt.train.pi05.sampling import sample_actions

NAMES = ("ours", "torch_fp32", "onnxruntime_fp32")


def check(report, part: str, runs: int) -> None:
    """Medians and speedups are those of the runs it lists; the numbers are PyTorch's."""
    for name in NAMES:
        times = report["all_runs_ms"][name][part]
        assert len(times) == runs
        assert report[f"{name}_ms"] == pytest.approx(median(times), abs=1e-4)
        assert report["peak_gib"][name] > 0
    for name in NAMES[1:]:
        assert report["speedup"][name] == pytest.approx(report[f"{name}_ms"] / report["ours_ms"], abs=1e-3)
    assert 1e-5 < report["relative_l2"] < 0.03  # int8, and nothing worse
    assert report["relative_l2_onnxruntime_fp32"] < 1e-5


def test_report_of_a_step(work: Path) -> None:
    arguments = ["bench", "step", "--size", "pi05-tiny", "--runs", "3", "--threads", "1", "--work", str(work)]
    result = CliRunner().invoke(build_app(), [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert {
        "bench": "step",
        "size": "pi05-tiny",
        "threads": 1,
        "runs": 3,
        "measured_on": "CPU",
    }.items() <= report.items()
    assert (report["prefix_tokens"], report["horizon"]) == (60, 6)
    check(report, "step", 3)
    assert report["torch_fp32_without_modulation_ms"] < report["torch_fp32_ms"]
    assert report["hardware"]["cores"] >= 1
    assert report["versions"]["torch"] == torch.__version__
    assert "round 3 of 3, ours" in result.stderr
    table = CliRunner().invoke(build_app(), [*arguments, "--runs", "1"], catch_exceptions=False)
    assert "torch_fp32" in table.stdout
    assert "making" not in table.stderr  # the engines were kept


def test_report_of_whole_calls(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Race, "apart", Race.together)  # processes of their own are tested beside the race
    report = call.bench_call("pi05-tiny", threads=1, runs=2, work=work, progress=lambda _: None)
    check(report, "call", 2)
    for name in NAMES:
        times = report["all_runs_ms"][name]
        assert set(report["parts_ms"][name]) == {"vision", "prefix", "steps"} == set(times) - {"call"}
        assert all(whole >= max(parts) for whole, *parts in zip(*times.values(), strict=True))


def test_the_peer_is_the_training_network_as_it_is_called() -> None:
    model = BenchPi05.open("pi05-tiny")
    peer = call.contestant("torch_fp32", {"size": "pi05-tiny", "threads": 1})
    peer.run()
    network = Pi05(model.config).eval()
    network.load_state_dict({name: model.source.read(name).float() for name in model.source.names()})
    chosen = np.random.default_rng(20).integers(0, model.config.vocabulary, model.config.max_token_len)
    tokens = torch.from_numpy(chosen)[None]
    images = torch.from_numpy(model.images().astype(np.float32) / 127.5 - 1.0)[None]
    prefix = network.prefix(images, tokens, torch.ones_like(tokens, dtype=torch.bool))
    expected = sample_actions(network, prefix, torch.from_numpy(model.noise())[None])[0]
    np.testing.assert_allclose(peer.outputs()["actions"], expected.detach().numpy(), atol=1e-4)


def test_full_size_is_what_the_figures_are_for() -> None:
    model = BenchPi05.open("pi05")
    assert (model.prefix_tokens, model.settings.horizon, model.settings.denoise_steps) == (968, 50, 10)
    assert model.elements("") == pytest.approx(3.35e9, rel=0.05)


def test_refusals(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: str) -> str:
        result = CliRunner().invoke(build_app(), ["bench", "step", "--work", str(work), *arguments])
        assert isinstance(result.exception, MemrtError)
        assert result.stdout == ""
        return str(result.exception)

    assert "size of the π0.5: expected one of pi05, pi05-tiny, found pi06" in refused("--size", "pi06")
    monkeypatch.setattr(hardware, "available_bytes", lambda: hardware.GIB)
    assert "too little memory for bench step --size pi05: expected" in refused()
    line = refused("--call")
    assert "bench step --size pi05 --call: expected" in line
    assert "found 1.0 GiB" in line
    assert "leave --call out" in line
