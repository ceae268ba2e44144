from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded import write_dataset

from memrt.calib.calibration_set import (
    DOCUMENT,
    CalibrationSet,
    load_calibration_set,
    reference_set,
    save_calibration_set,
)
from memrt.calib.chats import chats
from memrt.calib.record import Counts, record_calibration_set, split_episodes, spread
from memrt.runtime.config import load_policy
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import sha256_of
from memrt.runtime.memory.keyframe_reply import parse_keyframe_reply
from memrt.train.labels.turns import training_turn

COUNTS = Counts(low_level=10, low_level_gate=5, high_level=10, high_level_gate=10)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "dataset")


@pytest.fixture
def recorded(dataset: Path, tmp_path: Path) -> CalibrationSet:
    return record_calibration_set(dataset, tmp_path / "set", name="test", seed=3, counts=COUNTS)


def test_what_was_recorded_is_what_is_loaded(recorded: CalibrationSet, tmp_path: Path) -> None:
    loaded = load_calibration_set(tmp_path / "set")
    assert loaded.document == recorded.document
    assert set(loaded.images) == set(recorded.images)
    for name, image in loaded.images.items():
        np.testing.assert_array_equal(image, recorded.images[name])


def test_counts_and_roles(recorded: CalibrationSet) -> None:
    assert [len(recorded.low_level(role)) for role in ("calibration", "gate")] == [10, 5]
    assert [len(recorded.high_level(role)) for role in ("calibration", "gate")] == [10, 10]
    calibration = {s.episode for s in recorded.low_level("calibration")}
    gate = {s.episode for s in (*recorded.low_level("gate"), *recorded.high_level("gate"))}
    assert not calibration & gate
    assert max(calibration) < min(gate)


def test_samples_carry_their_own_row(dataset: Path, recorded: CalibrationSet) -> None:
    front = np.load(dataset / "low_level" / "front.npy")
    proprioception = np.load(dataset / "low_level" / "proprioception.npy")
    for sample in recorded.document.low_level:
        (row,) = np.flatnonzero((front == recorded.images[sample.images["front"]]).all((1, 2, 3)))
        np.testing.assert_allclose(sample.proprioception, proprioception[row], atol=1e-8)


def test_recording_is_a_function_of_the_seed(dataset: Path, recorded: CalibrationSet, tmp_path: Path) -> None:
    again = record_calibration_set(dataset, tmp_path / "again", name="test", seed=3, counts=COUNTS)
    other = record_calibration_set(dataset, tmp_path / "other", name="test", seed=4, counts=COUNTS)
    assert sha256_of(tmp_path / "again" / DOCUMENT) == sha256_of(tmp_path / "set" / DOCUMENT)
    assert again.manifest() == recorded.manifest()
    assert other.manifest()["sha256"] != recorded.manifest()["sha256"]


@pytest.mark.parametrize("policy", ["memoryless", "am_simple", "am_grounded"])
def test_chats_are_those_the_policy_was_trained_on(dataset: Path, recorded: CalibrationSet, policy: str) -> None:
    config = load_policy(policy)
    records = [json.loads(line) for line in (dataset / "high_level" / "samples.jsonl").read_text().splitlines()]
    by_call = {(record["episode"], record["step"]): record for record in records}
    samples = recorded.high_level("gate")
    for sample, chat in zip(samples, chats(recorded, config, "gate"), strict=True):
        request, reply = training_turn(config.memory, by_call[sample.episode, sample.step])
        assert (chat.system, chat.user, chat.reply) == (request.system, request.user, reply)


def test_a_keyframe_policys_chats_show_the_calls_before(recorded: CalibrationSet) -> None:
    policy = load_policy(Path(__file__).parents[1] / "keyframes" / "two_views.yaml")
    samples = recorded.high_level("gate")
    for sample, chat in zip(samples, chats(recorded, policy, "gate"), strict=True):
        earlier = [s for s in samples if s.episode == sample.episode and s.step <= sample.step]
        assert chat.user.count("<image>") == len(chat.images) == min(len(earlier), 16)
        assert {image.shape for image in chat.images} == {(352, 320, 3)}
        reply = parse_keyframe_reply(chat.reply)
        assert reply is not None
        assert reply.subtask == sample.grounded.subgoal


def test_a_changed_image_is_refused(recorded: CalibrationSet, tmp_path: Path) -> None:
    name = sorted(recorded.images)[0]
    path = tmp_path / "set" / name
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(MemrtError, match="SHA-256"):
        load_calibration_set(tmp_path / "set")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"unknown": 1}, "unknown"),
        ({"files": {"../outside.png": "0" * 64}}, "inside it"),
    ],
)
def test_a_malformed_document_is_refused(recorded: CalibrationSet, tmp_path: Path, change: dict, told: str) -> None:
    path = tmp_path / "set" / DOCUMENT
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    (tmp_path / "outside.png").write_bytes(b"")
    with pytest.raises(MemrtError, match=told):
        load_calibration_set(tmp_path / "set")


def test_an_episode_in_both_roles_is_refused(recorded: CalibrationSet, tmp_path: Path) -> None:
    path = tmp_path / "set" / DOCUMENT
    document = json.loads(path.read_text())
    document["low_level"][0]["episode"] = document["low_level"][-1]["episode"]
    path.write_text(json.dumps(document))
    with pytest.raises(MemrtError, match="no episode in both roles"):
        load_calibration_set(tmp_path / "set")


def test_other_files_are_never_overwritten(recorded: CalibrationSet, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(MemrtError, match="will not be overwritten"):
        save_calibration_set(tmp_path / "mine", recorded.document, recorded.images)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_refuses_an_incomplete_dataset(dataset: Path, tmp_path: Path) -> None:
    (dataset / "low_level" / "wrist.npy").unlink()
    with pytest.raises(MemrtError, match=r"wrist\.frames"):
        record_calibration_set(dataset, tmp_path / "set", name="test")


@given(st.lists(st.sampled_from("abcd"), max_size=60), st.integers(0, 70), st.integers(0, 9))
def test_spread_is_fair(kinds: list[str], count: int, seed: int) -> None:
    rows = list(range(100, 100 + len(kinds)))
    chosen = spread(rows, kinds, count, str(seed))
    assert len(chosen) == min(count, len(rows))
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(rows)
    taken = {kind: sum(kinds[row - 100] == kind for row in chosen) for kind in set(kinds)}
    for kind, number in taken.items():  # a kind falls behind another only when it is used up
        assert number == kinds.count(kind) or number >= max(taken.values()) - 1


def test_half_of_the_episodes_judge() -> None:
    assert split_episodes([1, 2]) == ([1], [2])
    assert split_episodes(list(range(101))) == (list(range(50)), list(range(50, 101)))
    with pytest.raises(MemrtError, match="at least 2"):
        split_episodes([1])


@pytest.mark.skipif(not reference_set().is_dir(), reason="no reference set recorded yet")
def test_the_reference_set_is_sound_and_small() -> None:
    calibration = load_calibration_set(reference_set())
    assert all(calibration.low_level(role) and calibration.high_level(role) for role in ("calibration", "gate"))
    assert sum(path.stat().st_size for path in reference_set().rglob("*")) < 3_000_000
