"""Fine-tuning data in ms-swift's format, and the commands that write and show it."""

import io
import json

import numpy as np
import pytest
from demonstrations import recorded
from PIL import Image
from typer.testing import CliRunner

from memrt.runtime.cli import build_app
from memrt.runtime.config import load_policy
from memrt.runtime.errors import MemrtError
from memrt.sim.frames import write_frames
from memrt.train.labels.chains import turns
from memrt.train.labels.sft import VALIDATION_EVERY, Recording, write_sft

SIDE = 8
SCENE = "red cube <130, 60>; green cube <130, 90>; blue cube <130, 120>; target <140, 75>; gripper <74, 130> open"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two recorded episodes of PickXtimes; the pixels of an image are its number."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "high_level"
    folder.mkdir()
    samples = [
        {"task": "PickXtimes", "episode": seed, "step": 8 * n, "scene": SCENE, **call}
        for seed in (3, 4)
        for n, call in enumerate(recorded("PickXtimes", seed, longest=4))
    ]
    (folder / "samples.jsonl").write_text("".join(f"{json.dumps(sample)}\n" for sample in samples))
    write_frames(folder / "front.frames", (np.full((SIDE, SIDE, 3), n, np.uint8) for n in range(len(samples))))
    return root


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return int(np.asarray(image)[0, 0, 0])


@pytest.mark.parametrize("policy", ["am_sm_grounded", "memer"])
def test_rows_are_the_runtimes_turns(data, tmp_path, policy):
    config, recording = load_policy(policy), Recording(data)
    written = write_sft(recording, config, tmp_path / "sft", phases=(0, 8), jobs=2)
    rows = [json.loads(line) for line in (tmp_path / "sft" / "train.jsonl").read_text().splitlines()]
    expected = list(turns(config.memory, recording.samples, phases=(0, 8)))
    assert len(rows) == written.training == len(expected)
    for row, turn in zip(rows, expected, strict=True):
        chat = [(message["role"], message["content"]) for message in row["messages"]]
        assert chat == [("system", turn.request.system), ("user", turn.request.user), ("assistant", turn.reply)]
        assert turn.request.user.count("<image>") == len(row["images"])
        assert [pixels(path) for path in row["images"]] == list(turn.images)
    assert len(list((tmp_path / "sft" / "images").iterdir())) == written.images
    assert (tmp_path / "sft" / "validation.jsonl").read_text() == ""
    assert written.episodes == 2 < VALIDATION_EVERY


def test_pictures_travel_as_they_were_recorded(data):
    recording = Recording(data)
    with Image.open(io.BytesIO(recording.front(recording.samples[5]))) as image:
        assert np.asarray(image).tolist() == np.full((SIDE, SIDE, 3), 5).tolist()


def test_other_cameras_and_other_folders_are_refused(data, tmp_path):
    with pytest.raises(MemrtError, match="wrist, front"):
        write_sft(Recording(data), load_policy("memer_droid"), tmp_path)
    with pytest.raises(MemrtError, match="high_level"):
        Recording(tmp_path)


def run(*arguments):
    result = CliRunner().invoke(build_app(), ["train", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_commands(data, tmp_path):
    shown = json.loads(run("labels", data, "--policy", "am_simple", "--episode", 4, "--json"))
    assert shown["episode"] == 4
    assert shown["calls"][0]["reply"].endswith("<mem>No actions had been completed yet.</mem>")
    assert f"goal: {shown['goal']}\n\nstep 0\n{shown['calls'][0]['reply']}\n" in run(
        "labels", data, "--policy", "am_simple", "--episode", 4
    )
    written = json.loads(run("sft", data, tmp_path / "sft", "--policy", "subgoal_simple", "--json"))
    assert written["training"] == len((tmp_path / "sft" / "train.jsonl").read_text().splitlines()) > 0
    assert written["phases"] == [0]
    for wrong in (("--phase", 16), ("--generator", "endpoint"), ("--generator", "endpoint", "--body", "[]")):
        with pytest.raises(MemrtError):
            run("sft", data, tmp_path / "sft", *wrong)
    with pytest.raises(MemrtError, match="recorded episode"):
        run("labels", data, "--task", "StopCube")
