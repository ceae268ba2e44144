from __future__ import annotations

import math
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from memrt.export.gate_thresholds import EPISODES, EpisodeThreshold
from memrt.export.gates import (
    ANSWER_FLOOR,
    CHAIN,
    GRIPPER_FLOOR,
    HIGH_LEVEL_CHAIN,
    REHEARSAL,
    THRESHOLDS,
    GateError,
    answer_agreement,
    gate,
    gripper_agreement,
    judge,
    threshold,
    write_golden,
)
from memrt.export.plan import SCHEMES
from memrt.runtime.engine.agreement import Agreement
from memrt.runtime.engine.golden import read_golden
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import sha256_of

RNG = np.random.default_rng(0)
REFERENCE = [{"y": RNG.normal(size=(3, 8)), "k": RNG.normal(size=(2, 4))} for _ in range(4)]


def disturbed(amount: float, sample: int) -> list[dict[str, np.ndarray]]:
    out = [dict(s) for s in REFERENCE]
    noise = np.random.default_rng(1).normal(size=(3, 8))
    y = out[sample]["y"]
    out[sample]["y"] = y + noise / np.linalg.norm(noise) * np.linalg.norm(y) * amount
    return out


@pytest.mark.parametrize(("better", "worse"), list(pairwise(("fp32", "fp16", "bf16", "int8", "fp8", "int4", "nvfp4"))))
def test_fewer_bits_are_never_held_to_more(better: str, worse: str) -> None:
    for name in {*THRESHOLDS[better], *THRESHOLDS[worse]}:
        assert threshold(name, worse).cosine <= threshold(name, better).cosine
        assert threshold(name, worse).relative_l2 >= threshold(name, better).relative_l2
    assert threshold("hl/decoder", worse).relative_l2 > threshold("hl/decoder", better).relative_l2
    for floors in (GRIPPER_FLOOR, ANSWER_FLOOR):
        assert floors[worse] <= floors[better]
    for field in fields(EpisodeThreshold):
        order = 1 if field.name.startswith("identical") else -1
        assert order * getattr(EPISODES[worse], field.name) <= order * getattr(EPISODES[better], field.name)


def test_every_scheme_of_a_plan_has_thresholds() -> None:
    for table in (THRESHOLDS, GRIPPER_FLOOR, ANSWER_FLOOR, EPISODES):
        assert set(table) == set(SCHEMES)


@pytest.mark.parametrize("precision", SCHEMES)
def test_an_engine_with_overflowing_accumulators_never_passes(precision: str) -> None:
    for name in ("hl/decoder", CHAIN, HIGH_LEVEL_CHAIN):
        with pytest.raises(GateError):
            judge(name, precision, Agreement(cosine=0.395, relative_l2=0.97, worst="logits, sample 0", samples=8))
        with pytest.raises(GateError):
            judge(name, precision, Agreement(cosine=math.nan, relative_l2=math.nan, worst="", samples=1))


def test_a_failure_carries_what_it_measured() -> None:
    with pytest.raises(GateError) as refused:
        gate("ll/step", "int8", REFERENCE, disturbed(0.3, 1), random_weights=True)
    assert refused.value.record["relative_l2"] == pytest.approx(0.3)
    assert refused.value.record["label"] == REHEARSAL


def test_only_random_weights_are_labelled() -> None:
    assert gate("ll/step", "fp32", REFERENCE, REFERENCE, random_weights=True)["label"] == "rehearsal: random weights"
    assert "label" not in gate("ll/step", "fp32", REFERENCE, REFERENCE)


def test_passes_and_records_its_threshold() -> None:
    record = gate("ll/step", "int8", REFERENCE, disturbed(0.05, 2))
    assert record["relative_l2"] == pytest.approx(0.05)
    assert record["worst"] == "y, sample 2"
    assert record["samples"] == 4
    assert record["threshold"] == {"cosine": 0.995, "relative_l2": 0.10}


@pytest.mark.parametrize("sample", range(4))
def test_one_bad_sample_fails_the_gate(sample: int) -> None:
    with pytest.raises(MemrtError, match=f"y, sample {sample}"):
        gate("ll/step", "int8", REFERENCE, disturbed(0.3, sample))


def test_fp32_gate_is_strict() -> None:
    gate("hl/vision", "fp32", REFERENCE, disturbed(5e-5, 0))
    with pytest.raises(MemrtError, match="defect of the export"):
        gate("hl/vision", "fp32", REFERENCE, disturbed(2e-4, 0))


def test_unknown_precision_has_no_gate() -> None:
    with pytest.raises(MemrtError, match="no thresholds"):
        gate("hl/vision", "int2", REFERENCE, REFERENCE)


def test_answers() -> None:
    reference = [np.arange(60), np.arange(40)]
    candidate = [np.arange(60), np.arange(40).copy()]
    candidate[1][3] = 99
    record = answer_agreement("int8", reference, candidate)
    assert record["identical_tokens"] == pytest.approx(0.99)
    assert record["identical_answers"] == 0.5
    with pytest.raises(MemrtError, match="answers"):
        answer_agreement("fp32", reference, candidate)
    with pytest.raises(MemrtError, match="same answers"):
        answer_agreement("fp32", reference, candidate[:1])


def test_gripper() -> None:
    reference = [np.arange(100) < 40, np.arange(100) < 60]
    late = [np.arange(100) < 41, np.arange(100) < 60]
    assert gripper_agreement("int8", reference, late)["identical"] == pytest.approx(0.995)
    with pytest.raises(MemrtError, match="open and close"):
        gripper_agreement("fp32", reference, late)
    with pytest.raises(MemrtError, match="open and close"):
        gripper_agreement("int8", reference, [~late[0], late[1]])


def test_golden_files_return_what_was_written(tmp_path: Path) -> None:
    feeds = [{"x": RNG.normal(size=(2, i + 1)).astype(np.float32)} for i in range(3)]
    outputs = [{"out/put": np.arange(i + 1)} for i in range(3)]
    for name in ("a", "b"):
        write_golden(tmp_path / f"{name}.npz", feeds, outputs)
    assert sha256_of(tmp_path / "a.npz") == sha256_of(tmp_path / "b.npz")
    read_feeds, read_outputs = read_golden(tmp_path / "a.npz")
    for written, read in ((feeds, read_feeds), (outputs, read_outputs)):
        assert len(written) == len(read)
        for w, r in zip(written, read, strict=True):
            assert set(w) == set(r)
            for name in w:
                np.testing.assert_array_equal(w[name], r[name])
                assert w[name].dtype == r[name].dtype
