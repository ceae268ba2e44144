"""`memrt calib`: what it records, what it shows, what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "calib"))

from recorded import write_dataset

from memrt.calib.calibration_set import load_calibration_set
from memrt.runtime.cli import build_app
from memrt.runtime.errors import MemrtError

COUNTS = ("--low-level", 10, "--low-level-gate", 5, "--high-level", 10, "--high-level-gate", 4)


def invoke(*arguments: object):
    return CliRunner().invoke(build_app(), ["calib", *map(str, arguments)])


def refusal(*arguments: object) -> str:
    result = invoke(*arguments)
    assert isinstance(result.exception, MemrtError), result.exception
    return str(result.exception)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("episodes"), episodes=6)


@pytest.fixture(scope="module")
def recorded(dataset: Path) -> Path:
    folder = dataset / "set"
    result = invoke("record", dataset, "-o", folder, *COUNTS)
    assert result.exit_code == 0, result.output
    return folder


def test_record_writes_a_set_that_loads(recorded: Path) -> None:
    document = load_calibration_set(recorded).document
    assert (document.name, document.seed) == ("set", 0)
    assert [len(document.low_level), len(document.high_level)] == [15, 14]
    assert recorded.stat().st_mode & 0o777 == 0o755


def test_record_prints_one_json_object(dataset: Path, tmp_path: Path) -> None:
    result = invoke("record", dataset, "-o", tmp_path / "a", "--name", "my task", "--seed", 3, *COUNTS, "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert (printed["name"], printed["seed"]) == ("my task", 3)
    assert printed["samples"]["low_level"] == {"calibration": 10, "gate": 5}
    again = json.loads(
        invoke("record", dataset, "-o", tmp_path / "b", "--name", "my task", "--seed", 3, *COUNTS, "--json").stdout
    )
    assert again["sha256"] == printed["sha256"]


def test_show_says_what_is_in_it(recorded: Path) -> None:
    printed = json.loads(invoke("show", recorded, "--json").stdout)
    loaded = load_calibration_set(recorded)
    assert printed["episodes"]["calibration"] == {"count": 3, "first": 100, "last": 102}
    assert printed["episodes"]["gate"] == {"count": 3, "first": 103, "last": 105}
    assert {c: v["sizes"] for c, v in printed["cameras"].items()} == {
        "high_level": ["32x32"],
        "low_level/front": ["16x16"],
        "low_level/wrist": ["16x16"],
    }
    joint = {role: [s.proprioception[2] for s in loaded.low_level(role)] for role in ("calibration", "gate")}
    for role, values in joint.items():
        assert printed["ranges"]["joint 3 (rad)"][role] == [min(values), max(values)]
    low, high = printed["ranges"]["joint 3 (rad)"]["calibration"]
    assert printed["outside"]["joint 3 (rad)"] == np.mean([not low <= value <= high for value in joint["gate"]])
    assert sum(printed["subgoals"]["low_level"].values()) == 15
    assert printed["png"] is None


def test_show_prints_tables(recorded: Path) -> None:
    result = invoke("show", recorded)
    assert result.exit_code == 0, result.output
    for part in (
        "set, seed 0",
        "3: 100 to 102",
        "low_level/wrist",
        "16x16",
        "joint 7",
        "gripper",
        "place the red cube",
    ):
        assert part in result.stdout, part


def test_the_contact_sheet_shows_every_image(recorded: Path, tmp_path: Path) -> None:
    result = invoke("show", recorded, "--png", tmp_path / "sheet.png", "--json")
    assert json.loads(result.stdout)["png"] == str(tmp_path / "sheet.png")
    invoke("show", recorded, "--png", tmp_path / "again.png")
    assert (tmp_path / "sheet.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    assert sheet.shape[1] == 12 * 100 + 4
    for name, image in load_calibration_set(recorded).images.items():
        corner = np.repeat(np.repeat(image[:1, :4], 96 // len(image), 0), 96 // len(image), 1)
        rows, columns = np.nonzero((sheet == corner[0, 0]).all(-1))
        found = any(
            (sheet[y : y + corner.shape[0], x : x + corner.shape[1]] == corner).all()
            for y, x in zip(rows, columns, strict=True)
            if y + corner.shape[0] <= sheet.shape[0] and x + corner.shape[1] <= sheet.shape[1]
        )
        assert found, name


def test_the_reference_set_is_shown_by_default() -> None:
    assert json.loads(invoke("show", "--json").stdout)["samples"]["low_level"] == {"calibration": 96, "gate": 48}


def test_an_older_set_is_replaced_and_nothing_else_is(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    for _ in range(2):
        assert invoke("record", dataset, "-o", out, *COUNTS).exit_code == 0
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep me")
    assert "will not be overwritten" in refusal("record", dataset, "-o", tmp_path / "notes", *COUNTS)
    assert "will not be overwritten" in refusal("record", dataset, "-o", tmp_path / "notes" / "mine.txt", *COUNTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "set"]


def test_episodes_that_are_none_are_refused(dataset: Path, tmp_path: Path) -> None:
    assert "nothing there" in refusal("record", tmp_path / "none", "-o", tmp_path / "set")
    (tmp_path / "half" / "low_level").mkdir(parents=True)
    assert "no `high_level` in it" in refusal("record", tmp_path / "half", "-o", tmp_path / "set")
    broken = write_dataset(tmp_path / "broken", episodes=2)
    (broken / "high_level" / "samples.jsonl").write_text('{"episode": 1')
    assert "samples.jsonl" in refusal("record", broken, "-o", tmp_path / "set")
    (broken / "low_level" / "texts.json").unlink()
    assert "no such file" in refusal("record", broken, "-o", tmp_path / "set")
    (broken / "low_level" / "wrist.npy").write_bytes(b"\x93NUMPY truncated")
    assert "wrist.npy" in refusal("record", broken, "-o", tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_a_changed_image_is_refused(dataset: Path, tmp_path: Path) -> None:
    invoke("record", dataset, "-o", tmp_path / "set", *COUNTS)
    Image.new("RGB", (16, 16)).save(tmp_path / "set" / "low_level" / "0000_front.png")
    assert "another content" in refusal("show", tmp_path / "set")
    assert "memrt calib record" in refusal("show", tmp_path)


@pytest.mark.parametrize("command", [(), ("record",), ("show",)])
def test_help_teaches(command: tuple[str, ...]) -> None:
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    assert ("memrt calib" if command else "judge") in result.output
