"""`memrt train`: what is refused before hours are spent."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from memrt.runtime.cli import build_app
from memrt.runtime.errors import MemrtError


def test_a_low_level_is_not_trained_on_an_unfinished_recording(tmp_path: Path):
    result = CliRunner().invoke(build_app(), ["train", "low-level", str(tmp_path), "--out", str(tmp_path / "run")])
    with pytest.raises(MemrtError, match="finished recording"):
        raise result.exception
    assert not (tmp_path / "run").exists()
