"""`memrt sim`: what it prints, what it writes, what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from memrt.runtime.cli import build_app
from memrt.runtime.errors import MemrtError
from memrt.sim.frames import open_frames

run = CliRunner()


def invoke(*arguments: str):
    result = run.invoke(build_app(), ["sim", *arguments])
    if isinstance(result.exception, MemrtError):
        raise result.exception
    return result


def test_an_episode_is_told_by_its_subgoals():
    result = invoke("show", "StopCube", "--seed", "1", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert report["success"]
    assert report["subgoals"][0] == "move to the top of the button to prepare"
    assert report["subgoals"][-1] == "press the button to stop the cube on the target"
    spoken = invoke("show", "StopCube", "--seed", "1").stdout
    assert report["goal"] in spoken
    assert f"success in {report['steps']} steps" in spoken


def test_an_episode_can_be_watched(tmp_path: Path):
    video = tmp_path / "episode.mp4"
    invoke("show", "PickXtimes", "--seed", "1000012", "--video", str(video))
    assert video.stat().st_size > 20_000


def test_the_contact_sheet_is_small(tmp_path: Path):
    out = tmp_path / "sheet.png"
    invoke("sheet", str(out), "--task", "StopCube", "--difficulty", "easy")
    picture = np.asarray(Image.open(out).convert("RGB"))
    assert out.stat().st_size < 60_000
    assert picture.std() > 10


def test_the_expert_is_measured_per_difficulty():
    report = json.loads(invoke("expert", "StopCube", "--episodes", "1", "--difficulty", "easy", "--json").stdout)
    assert report["success_rate"] == 1.0
    assert report["by_difficulty"]["easy"]["episodes"] == 1
    assert "1 of 1" in invoke("expert", "StopCube", "--episodes", "1", "--difficulty", "easy").stdout


def test_a_dataset_is_recorded(tmp_path: Path):
    result = invoke("record", "StopCube", str(tmp_path), "--episodes", "1", "--image-size", "32", "--seed-start", "3")
    assert "1 episodes" in result.stdout
    line = json.loads((tmp_path / "high_level/samples.jsonl").read_text().splitlines()[0])
    assert line["subgoal_simple"] == "move to the top of the button to prepare"
    assert open_frames(tmp_path / "low_level", "front").shape[1:] == (32, 32, 3)


@pytest.mark.parametrize("words", ["show Juggle", "expert Juggle", "sheet sheet.png --task Juggle"])
def test_an_unknown_task_is_refused(words, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MemrtError, match="BinFill"):
        invoke(*words.split())


def test_an_unknown_task_is_not_recorded(tmp_path: Path):
    with pytest.raises(MemrtError, match="BinFill"):
        invoke("record", "Juggle", str(tmp_path / "data"))
    assert not (tmp_path / "data").exists()


def test_a_sheet_needs_a_folder_and_a_png(tmp_path: Path):
    for out in (tmp_path / "sheet.jpg", tmp_path / "missing" / "sheet.png"):
        with pytest.raises(MemrtError, match="contact sheet"):
            invoke("sheet", str(out))
