from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.runtime.engine.agreement import compare
from memrt.runtime.engine.golden import read_golden, reproduce
from memrt.runtime.errors import MemrtError


class Doubler:
    """An engine that computes y = 2x, with an error added."""

    inputs = ()
    outputs = ()

    def __init__(self, error: float) -> None:
        self.error = error

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": feeds["x"] * 2 + self.error}

    def close(self) -> None:
        pass


def test_identical_outputs_agree_perfectly() -> None:
    sample = [{"y": np.array([1.0, -2.0, 3.0])}]
    agreement = compare(sample, sample)
    assert agreement.cosine == pytest.approx(1.0)
    assert agreement.relative_l2 == 0.0


@given(st.floats(0.01, 10.0))
def test_scaling_changes_length_but_not_direction(factor: float) -> None:
    y = np.array([1.0, -2.0, 3.0])
    agreement = compare([{"y": y}], [{"y": y * factor}])
    assert agreement.cosine == pytest.approx(1.0)
    assert agreement.relative_l2 == pytest.approx(abs(factor - 1.0), abs=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_outputs_never_agree(value: float) -> None:
    agreement = compare([{"y": np.ones(3)}], [{"y": np.array([1.0, value, 1.0])}])
    assert agreement.cosine == -1.0
    assert agreement.relative_l2 == np.inf


def test_zero_outputs() -> None:
    zero, one = {"y": np.zeros(3)}, {"y": np.ones(3)}
    assert compare([zero], [zero]).relative_l2 == 0.0
    assert compare([zero], [one]).relative_l2 == np.inf
    assert compare([one], [zero]).cosine == -1.0


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [
        ([], []),
        ([{"y": np.ones(3)}], []),
        ([{"y": np.ones(3)}], [{"z": np.ones(3)}]),
        ([{"y": np.ones(3)}], [{"y": np.ones((3, 1))}]),
    ],
)
def test_refuses_what_cannot_be_compared(reference: list[dict], candidate: list[dict]) -> None:
    with pytest.raises(MemrtError, match="cannot compare"):
        compare(reference, candidate)


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    x = np.arange(1.0, 5.0)
    np.savez(tmp_path / "golden.npz", **{"0/in/x": x, "0/out/y": 2 * x})
    return tmp_path / "golden.npz"


def test_device_gate(golden: Path) -> None:
    limits = {"cosine": 0.999, "relative_l2": 1e-3}
    assert reproduce("ll/step", Doubler(1e-4), golden, limits).samples == 1
    with pytest.raises(MemrtError, match="does not reproduce"):
        reproduce("ll/step", Doubler(0.1), golden, limits)


def test_refuses_golden_files_that_are_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "half.npz", **{"0/in/x": np.ones(2)})
    np.savez(tmp_path / "other.npz", weights=np.ones(2))
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("half", "other", "text", "absent"):
        with pytest.raises(MemrtError, match="golden samples"):
            read_golden(tmp_path / f"{name}.npz")
