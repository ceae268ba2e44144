"""`memrt fidelity`: prints what was compared, and with --gate refuses what the export's gate would refuse."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import create_autospec

import pytest
import typer
from typer.testing import CliRunner

from memrt.runtime.cli import fidelity_command
from memrt.runtime.errors import MemrtError

fidelity = pytest.importorskip("memrt.export.fidelity")


def invoke(*arguments: str):
    app = typer.Typer()
    fidelity_command.register(app)
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def low_level(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The figures that the comparison gives back."""
    figures = {"chunks": 48, "relative_l2_mean": 0.02, "relative_l2_worst": 0.04, "identical_gripper": 1.0}

    def report(bundle: Any, against: Any, **_: Any) -> dict[str, Any]:
        return {"policy": "am", "bundle": {"precision": "int8"}, "high_level": None, "low_level": dict(figures)}

    monkeypatch.setattr(fidelity, "compare_bundles", create_autospec(fidelity.compare_bundles, side_effect=report))
    return figures


def test_prints_one_json_object_and_judges_only_when_asked(low_level: dict[str, float]) -> None:
    low_level["relative_l2_worst"] = 0.5
    result = invoke("bundle", "--against", "fp32", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["low_level"]["relative_l2_worst"] == 0.5
    assert "threshold" not in json.loads(result.stdout)


def test_the_gate_adds_its_thresholds(low_level: dict[str, float]) -> None:
    result = invoke("bundle", "--against", "fp32", "--gate", "--json")
    assert json.loads(result.stdout)["threshold"]["relative_l2_worst"] == 0.08


def test_the_gate_refuses(low_level: dict[str, float]) -> None:
    low_level["relative_l2_worst"] = 0.5
    result = invoke("bundle", "--against", "fp32", "--gate", "--json")
    assert isinstance(result.exception, MemrtError)
    assert "relative l2 worst" in str(result.exception)
    assert result.stdout == ""
