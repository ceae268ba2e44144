"""Training on a few synthetic moments: it learns, it resumes exactly, it never trains on held-out episodes."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from memrt.runtime.config import LowLevelConfig
from memrt.runtime.errors import MemrtError
from memrt.train.low_level_data import Augmentation, LowLevelData, jitter_coordinates
from memrt.train.low_level_train import LowLevelTraining, TrainingSettings, learning_rate
from memrt.train.pi05.checkpoint import load_model

EPISODES, LENGTH = 22, 3
SETTINGS = TrainingSettings(minutes=60.0, batch=4, batch_without_views=6, draws=2, held_out=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    count = EPISODES * LENGTH
    texts = [
        "pick up the red cube",
        "pick up the red cube <120, 88>",
        "place the cube",
        "place the cube <3, 255>",
        "go",
    ]
    which = rng.integers(0, 2, count)
    arrays = {
        "front": rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
        "wrist": rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
        "proprioception": rng.normal(size=(count, 8)).astype(np.float32),
        "actions": rng.normal(size=(count, 6, 8)).astype(np.float32),
        "episode": np.repeat(np.arange(EPISODES, dtype=np.int32), LENGTH),
        "goal": np.full(count, 4, np.int32),
        "subgoal_simple": (2 * which).astype(np.int32),
        "subgoal_grounded": (2 * which + 1).astype(np.int32),
    }
    for name, array in arrays.items():
        np.save(root / f"{name}.npy", array)
    (root / "texts.json").write_text(json.dumps(texts))
    (root / "DONE").touch()
    return root


@pytest.fixture
def data(folder: Path, settings: LowLevelConfig) -> LowLevelData:
    return LowLevelData(folder, settings)


def training(data: LowLevelData, out: Path, **options: object) -> LowLevelTraining:
    return LowLevelTraining(data, out, SETTINGS, progress=lambda line: None, **options)  # type: ignore[arg-type]


def test_episodes_are_entirely_trained_on_or_held_out(data: LowLevelData) -> None:
    train, held_out = data.split()
    assert len(train) + len(held_out) == len(data)
    assert set(data.episode[held_out]) == {0, 20}
    assert not set(data.episode[train]) & set(data.episode[held_out])


def test_a_resumed_run_equals_an_uninterrupted_one(data: LowLevelData, tmp_path: Path) -> None:
    train, _ = data.split()
    whole = training(data, tmp_path / "whole")
    for _ in range(4):
        whole.train_step(train)
    first = training(data, tmp_path / "parts")
    for _ in range(2):
        first.train_step(train)
    first.checkpoint()
    second = training(data, tmp_path / "parts", resume=True)
    assert second.step == 2
    for _ in range(2):
        second.train_step(train)
    for name, value in whole.averaged.items():
        assert torch.equal(value, second.averaged[name]), name


def test_a_checkpoint_holds_the_averaged_weights(data: LowLevelData, tmp_path: Path) -> None:
    run = training(data, tmp_path)
    run.train_step(data.split()[0])
    run.checkpoint()
    loaded = load_model(tmp_path).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in run.averaged.items())
    assert not all(torch.equal(value, loaded[name]) for name, value in run.model.state_dict().items())


def test_the_loss_falls(data: LowLevelData, tmp_path: Path) -> None:
    run = training(data, tmp_path)
    train, _ = data.split()
    run.elapsed_s = 0.05 * SETTINGS.minutes * 60.0  # past the warm-up
    losses = [run.train_step(train)["loss"] for _ in range(40)]
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])


def test_held_out_metrics_tell_both_styles_apart(data: LowLevelData, tmp_path: Path) -> None:
    run = training(data, tmp_path)
    report = run.evaluate(data.split()[1])
    assert set(report) == {"simple", "grounded"}
    assert report["simple"] != report["grounded"]
    assert report["simple"]["motion_rad"] == report["grounded"]["motion_rad"] > 0.0


def test_recorded_batches_are_exact_and_trimmed(data: LowLevelData, tmp_path: Path) -> None:
    run = training(data, tmp_path)
    batch = run.batches.recorded(np.array([0, 1, 2, 3]), "grounded")
    images = torch.from_numpy(np.stack([data.views[0][:4], data.views[1][:4]], 1)).float() / 127.5 - 1.0
    torch.testing.assert_close(batch.images, images)
    assert batch.mask.any(0).all()
    np.testing.assert_allclose(run.stats.actions.unnormalise(batch.actions.numpy()), data.deltas[:4], atol=1e-5)


def test_without_augmentation_training_samples_are_the_recording(data: LowLevelData, tmp_path: Path) -> None:
    run = training(data, tmp_path)
    exact = Augmentation(0, 0.0, 0.0, 0.0, 0, 0.0, (1, 1), 0.0, 0.0, grounded=1.0)
    run.batches._augmentation = exact
    indices = np.array([5, 9])
    ours = run.batches.training(indices, np.random.default_rng(0))
    theirs = run.batches.recorded(indices, "grounded")
    torch.testing.assert_close(ours.images, theirs.images)
    assert torch.equal(ours.tokens, theirs.tokens)


def test_jittered_coordinates_stay_inside_the_image_and_near() -> None:
    rng = np.random.default_rng(0)
    seen = {jitter_coordinates("at <0, 254>", 2, rng) for _ in range(200)}
    numbers = {tuple(int(n) for n in text[4:-1].split(", ")) for text in seen}
    assert {row for row, _ in numbers} == {0, 1, 2}
    assert {column for _, column in numbers} == {252, 253, 254, 255}


@pytest.mark.parametrize(("progress", "share"), [(0.01, 0.5), (0.02, 1.0), (0.51, 0.505), (1.0, 0.01), (1.4, 0.01)])
def test_the_learning_rate_follows_the_clock(progress: float, share: float) -> None:
    assert learning_rate(progress, SETTINGS) == pytest.approx(share * SETTINGS.learning_rate)


def test_an_unfinished_recording_is_refused(folder: Path, settings: LowLevelConfig, tmp_path: Path) -> None:
    with pytest.raises(MemrtError, match="no DONE file"):
        LowLevelData(tmp_path, settings)
    with pytest.raises(MemrtError, match="32 x 32"):
        LowLevelData(folder, msgspec.structs.replace(settings, image_size=96))
