"""Recorded runs and LeRobot datasets as training data: pictures, chunks and subgoals of the right moments."""

import json
import shutil
from dataclasses import replace

import lerobot_datasets as lerobot
import msgspec
import numpy as np
import pytest
import typer
from lerobot_datasets import HAND, LENGTHS, LIFT_AT, TASKS, TOP, level, state, target
from reported_runs import GOAL, cut_off, record_keyframes, record_texts
from typer.testing import CliRunner

from memrt.runtime.cli import train_command
from memrt.runtime.config import load_policy
from memrt.runtime.errors import MemrtError
from memrt.runtime.recording.reader import Recording
from memrt.sim.frames import open_frames
from memrt.train.episodes.add import FIRST_NUMBER, add_episodes, join
from memrt.train.episodes.demonstration import Spoken, samples
from memrt.train.episodes.lerobot import Columns, lerobot_episodes
from memrt.train.episodes.recorded_run import recorded_run
from memrt.train.low_level_data import LowLevelData

SETTINGS = load_policy("am_grounded").low_level
SMALL = msgspec.structs.replace(SETTINGS, image_size=32)
COLUMNS = Columns(cameras={"front": TOP, "wrist": HAND})
EVERY = 2  # frames at 10 Hz between samples 0.2 s apart


@pytest.fixture(scope="module", params=["v2.1", "v3.0"])
def dataset(request, tmp_path_factory):
    write = lerobot.write_v21 if request.param == "v2.1" else lerobot.write_v30
    return write(tmp_path_factory.mktemp("lerobot") / "cups")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return record_texts(tmp_path_factory.mktemp("runs") / "good.mcap")


def test_every_sample_of_a_lerobot_dataset_is_that_of_its_moment(dataset):
    for episode, demonstration in enumerate(lerobot_episodes(dataset, COLUMNS)):
        record = samples(demonstration, FIRST_NUMBER, SMALL)
        assert (record.task, record.goal, record.usable) == ("cups", TASKS[episode], True)
        assert len(record.low_level) == -(-LENGTHS[episode] // EVERY)
        for index, sample in enumerate(record.low_level):
            frame = index * EVERY
            assert abs(sample.images["front"].mean() - level(episode, frame)) < lerobot.GREY / 2
            assert abs(sample.images["wrist"].mean() - (255 - level(episode, frame))) < lerobot.GREY / 2
            np.testing.assert_allclose(sample.proprioception, state(episode, frame), atol=1e-6)


def test_a_chunk_is_what_the_robot_was_asked_for_at_the_policys_rate(dataset):
    demonstration = list(lerobot_episodes(dataset, COLUMNS))[1]
    record = samples(demonstration, FIRST_NUMBER, SMALL)
    chunk = record.low_level[2].actions  # at frame 4; a step is half a frame
    assert chunk.shape == (SMALL.horizon, 8)
    np.testing.assert_allclose(chunk[1], target(1, 4), atol=1e-6)
    np.testing.assert_allclose(chunk[3], target(1, 5), atol=1e-6)
    np.testing.assert_allclose(chunk[2], (target(1, 4) + target(1, 5)) / 2, atol=1e-6)
    np.testing.assert_allclose(record.low_level[-1].actions[-1], target(1, LENGTHS[1] - 1), atol=1e-6)  # rests there


def test_subtasks_become_subgoals_and_segments(tmp_path):
    record = samples(next(lerobot_episodes(lerobot.write_v30(tmp_path / "cups"), COLUMNS)), FIRST_NUMBER, SMALL)
    grasp, lift = "grasp the cup", "lift the cup"
    assert [s.subgoal_simple for s in record.low_level] == [grasp] * (LIFT_AT // EVERY) + [lift] * 3
    assert record.low_level[0].subgoal_grounded == "grasp the cup <10, 20>"
    assert [s.labels["segment"] for s in record.high_level] == [0, 0, 0, 1, 1, 1]
    assert [s.labels["previous_segment"] for s in record.high_level] == [-1, -1, -1, -1, 0, 0]  # 0.8 s before
    assert [s.labels["step"] for s in record.high_level] == [0, 4, 8, 12, 16, 20]
    assert record.high_level[-1].labels["history_grounded"] == ["grasp the cup <10, 20>"]
    assert record.high_level[0].image.shape == (256, 256, 3)


def test_without_subtasks_the_action_expert_is_told_the_goal(tmp_path):
    record = samples(next(lerobot_episodes(lerobot.write_v21(tmp_path / "cups"), COLUMNS)), FIRST_NUMBER, SMALL)
    assert {sample.subgoal_simple for sample in record.low_level} == {TASKS[0]}
    assert record.high_level == []


def test_av1_the_codec_that_lerobot_writes_is_read_too(tmp_path):
    root = lerobot.write_v30(tmp_path / "cups", codec="libsvtav1")
    record = samples(list(lerobot_episodes(root, COLUMNS))[1], FIRST_NUMBER, SMALL)
    found = [sample.images["front"].mean() for sample in record.low_level]
    np.testing.assert_allclose(found, [level(1, frame) for frame in range(0, LENGTHS[1], EVERY)], atol=lerobot.GREY / 2)


def test_a_gripper_that_counts_the_other_way_is_turned_round(dataset):
    closing = Columns(cameras=COLUMNS.cameras, gripper="closing")
    sample = samples(next(lerobot_episodes(dataset, closing)), FIRST_NUMBER, SMALL).low_level[0]
    assert sample.proprioception[7] == pytest.approx(0.75)
    assert sample.actions[0, 7] == pytest.approx(0.25)


def test_a_recorded_run_gives_what_its_policies_saw_and_sent(run):
    record = samples(recorded_run(run, "swing"), FIRST_NUMBER, SMALL)
    told = [m.message for m in Recording(run).messages(lambda topic: topic == "/low_level")]
    by_time = {call.observation.t_ns: call for call in told}
    demonstration = recorded_run(run, "swing")
    assert (record.goal, record.usable) == (GOAL, True)
    assert set(by_time) <= set(demonstration.times_ns.tolist())
    moments = [10, 14, 18, 20, 22, 26, 30]  # tenths of a second; looks at 1.5 and 2.5 s are off the grid
    for moment, sample in zip(moments, record.low_level, strict=True):
        if (call := by_time.get(moment * 10**8)) is None:
            continue
        np.testing.assert_allclose(sample.proprioception, call.observation.proprioception, atol=1e-3)
        played = slice(8)  # the next chunk replaces the rest
        np.testing.assert_allclose(sample.actions[played], np.array(call.chunk.actions)[played], atol=1e-9)
        assert sample.subgoal_grounded == call.subgoal.text
    segments = [sample.labels["segment"] for sample in record.high_level]
    assert segments == sorted(segments)
    assert set(segments) == {0, 1}
    assert "<" not in record.high_level[0].labels["subgoal_simple"]


def test_what_was_added_can_be_trained_on_and_is_added_once(dataset, run, tmp_path):
    first = [*add_episodes(tmp_path, dataset, SMALL, COLUMNS), *add_episodes(tmp_path, run, SMALL, COLUMNS, "swing")]
    again = [*add_episodes(tmp_path, dataset, SMALL, COLUMNS), *add_episodes(tmp_path, run, SMALL, COLUMNS, "swing")]
    assert [added.number for added in first] == [FIRST_NUMBER, FIRST_NUMBER + 1, FIRST_NUMBER]
    assert [added.skipped for added in again] == ["added before"] * 3
    assert join(tmp_path) == 3
    joined, count = tmp_path / "low_level", sum(added.low_level for added in first)
    texts = json.loads((joined / "texts.json").read_text())
    assert {texts[index] for index in np.load(joined / "goal.npy")} == {*TASKS, GOAL}
    data = LowLevelData(joined, SMALL)
    assert (len(data), data.deltas.shape, data.views(count - 1)[1].shape) == (count, (count, 16, 8), (32, 32, 3))
    lines = (tmp_path / "high_level" / "samples.jsonl").read_text().splitlines()
    assert len(lines) == len(open_frames(tmp_path / "high_level", "front")) == sum(added.high_level for added in first)


def test_before_the_first_answer_the_first_subgoal_is_due_and_nothing_is_taught_of_actions(run):
    """In real time a policy's first answer takes a while, and the arm waits for it."""
    told = recorded_run(run, "swing")
    late = replace(
        told,
        subgoals=[Spoken(told.times_ns[0] + 3 * 10**8, "swing left <1, 2>")],
        command_ns=told.command_ns[8:],
        commands=told.commands[8:],
    )
    record = samples(late, FIRST_NUMBER, SMALL)
    first = record.high_level[0].labels
    assert (first["step"], first["subgoal_simple"], first["previous_segment"]) == (0, "swing left", -1)
    assert len(record.low_level) == len(record.high_level) - 1  # that of the first moment


def test_a_failed_run_is_left_out(run, tmp_path):
    (added,) = add_episodes(tmp_path, cut_off(run, tmp_path / "cut.mcap"), SMALL, COLUMNS, "swing")
    assert added.skipped.startswith("not successful")
    assert not (tmp_path / "episodes").exists()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"codebase_version": "v1.6"}, "version v1.6"),
        ({"features": {"action": {}}}, "--camera front="),
    ],
)
def test_another_dataset_is_refused(dataset, tmp_path, change, complaint):
    shutil.copytree(dataset / "meta", tmp_path / "meta")
    info = json.loads((dataset / "meta/info.json").read_text()) | change
    (tmp_path / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(MemrtError, match=complaint):
        next(lerobot_episodes(tmp_path, COLUMNS))


def test_a_run_with_one_camera_is_refused(tmp_path):
    with pytest.raises(MemrtError, match="front, wrist"):
        samples(recorded_run(record_keyframes(tmp_path / "run.mcap"), "swing"), FIRST_NUMBER, SMALL)


def test_the_command_adds_and_counts(dataset, tmp_path):
    app = typer.Typer()
    train_command.register(app)
    cameras = ["--camera", f"front={TOP}", "--camera", f"wrist={HAND}"]
    result = CliRunner().invoke(app, ["train", "import", str(dataset), "--root", str(tmp_path), *cameras, "--json"])
    assert result.exit_code == 0, result.exception
    found = json.loads(result.stdout)
    assert found["episodes"] == 2
    assert [source["low_level"] for source in found["sources"]] == [-(-n // EVERY) for n in LENGTHS]
    refused = CliRunner().invoke(app, ["train", "import", str(dataset), "--root", str(tmp_path), "--camera", "top=x"])
    assert isinstance(refused.exception, MemrtError)
