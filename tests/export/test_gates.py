from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from memrt.export.gates import (
    THRESHOLDS,
    answer_agreement,
    gate,
    gripper_agreement,
    threshold,
    write_golden,
)
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


def test_int8_is_never_held_to_more_than_fp32() -> None:
    for name in {*THRESHOLDS["fp32"], *THRESHOLDS["int8"]}:
        assert threshold(name, "int8").cosine < threshold(name, "fp32").cosine
        assert threshold(name, "int8").relative_l2 > threshold(name, "fp32").relative_l2


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
        gate("hl/vision", "fp8", REFERENCE, REFERENCE)


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
