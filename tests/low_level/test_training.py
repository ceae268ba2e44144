"""Training on a few synthetic moments: it learns, it resumes exactly, it never trains on held-out episodes."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from memrt.runtime.config import LowLevelConfig
from memrt.runtime.errors import MemrtError
from memrt.train.low_level_data import Augmentation, LowLevelData, jitter_coordinates
from memrt.train.low_level_loss import flow_loss
from memrt.train.low_level_settings import TrainingSettings, learning_rate
from memrt.train.low_level_train import LowLevelTraining
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
        "FirstTask",
        "SecondTask",
    ]
    which = rng.integers(0, 2, count)
    arrays = {
        "front": rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
        "wrist": rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
        "proprioception": rng.normal(size=(count, 8)).astype(np.float32),
        "actions": rng.normal(size=(count, 6, 8)).astype(np.float32),
        "episode": np.repeat(np.arange(EPISODES, dtype=np.int32), LENGTH),
        "task": np.repeat((5 + np.arange(EPISODES) // 4 % 2).astype(np.int32), LENGTH),
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
    whole = training(data, tmp_path / "whole")
    for _ in range(4):
        whole.train_step()
    first = training(data, tmp_path / "parts")
    for _ in range(2):
        first.train_step()
    first.checkpoint()
    second = training(data, tmp_path / "parts", resume=True)
    assert second.step == 2
    for _ in range(2):
        second.train_step()
    for name, value in whole.averaged.items():
        assert torch.equal(value, second.averaged[name]), name


def test_a_checkpoint_holds_the_averaged_weights(data: LowLevelData, tmp_path: Path) -> None:
    run = training(data, tmp_path)
    run.train_step()
    run.checkpoint()
    loaded = load_model(tmp_path).state_dict()
    assert all(torch.equal(value, loaded[name]) for name, value in run.averaged.items())
    assert not all(torch.equal(value, loaded[name]) for name, value in run.model.state_dict().items())


def test_the_loss_falls(data: LowLevelData, tmp_path: Path) -> None:
    run = training(data, tmp_path)
    run.elapsed_s = 0.05 * SETTINGS.minutes * 60.0  # past the warm-up
    run.settings = dataclasses.replace(SETTINGS, continued=0.0)
    losses = [run.train_step()["loss"] for _ in range(30)]
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])


def test_held_out_metrics_tell_tasks_and_styles_apart(data: LowLevelData, tmp_path: Path) -> None:
    run = training(data, tmp_path)
    report = run.evaluate(3)
    assert set(report) == {"FirstTask", "SecondTask"}
    for styles in report.values():
        assert set(styles) == {"simple", "grounded", "goal"}
        assert len({metrics["relative_l2"] for metrics in styles.values()}) == 3
        assert len({metrics["motion_rad"] for metrics in styles.values()}) == 1


def test_seldom_steps_and_tasks_are_drawn_more_often_than_recorded(data: LowLevelData) -> None:
    data.task, data.subgoal["simple"] = np.repeat([5, 6], [33, 33]), np.repeat([0, 2, 0], [32, 1, 33])
    chances = data.chances(np.arange(42))
    assert chances.sum() == pytest.approx(1.0)
    assert chances[:33].sum() / chances[33:].sum() == pytest.approx((33 / 9) ** 0.5)
    assert chances[32] / chances[:32].sum() == pytest.approx((1 / 32) ** 0.5)


def test_recordings_are_joined_and_read_again_as_they_grow(
    folder: Path, settings: LowLevelConfig, tmp_path: Path
) -> None:
    growing = tmp_path / "growing"
    shutil.copytree(folder, growing)
    (growing / "texts.json").write_text(json.dumps(["other", *json.loads((folder / "texts.json").read_text())[1:]]))
    data = LowLevelData([folder, growing], settings)
    count = len(data) // 2
    assert data.texts[data.subgoal["simple"][0]] in ("pick up the red cube", "place the cube")
    first = int(np.flatnonzero(data.subgoal["simple"] == 0)[0])
    assert data.texts[data.subgoal["simple"][count + first]] == "other"
    assert data.texts[data.task[count]] == "FirstTask"
    for ours, theirs in zip(data.views(count + 2), data.views(2), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not data.reread()
    for path in growing.glob("*.npy"):
        np.save(path, np.concatenate([np.load(path)] * 2))
    os.utime(growing / "DONE", (1, 1))
    np.save(growing / "actions.npy", np.concatenate([np.load(growing / "actions.npy")] * 2))  # the next join has begun
    assert data.reread()
    assert len(data) == 3 * count


def test_known_words_keep_their_embedding_when_the_tokenizer_grows(data: LowLevelData, tmp_path: Path) -> None:
    first = training(data, tmp_path / "first")
    first.checkpoint()
    data.texts.append("swing an aardvark")
    second = training(data, tmp_path / "second", start_from=tmp_path / "first")
    before, after = (Tokenizer.from_file(str(tmp_path / run / "tokenizer.json")) for run in ("first", "second"))
    rows = [run.model.language_model.embed_tokens.weight for run in (first, second)]
    assert len(rows[1]) == len(rows[0]) + 3
    for word in ("<bos>", "17", "cube", "third"):
        assert torch.equal(rows[0][before.token_to_id(word)], rows[1][after.token_to_id(word)])
    assert torch.equal(first.model.action_in_proj.weight, second.model.action_in_proj.weight)


class Watched:
    """As much of a network as the loss needs: its rows are the flow times, its velocity is 0."""

    def modulation(self, t: torch.Tensor) -> torch.Tensor:
        return t[..., None, None, None]

    def velocity(self, x: torch.Tensor, rows: torch.Tensor, prefix: object) -> torch.Tensor:
        self.x, self.t = x, rows[..., 0, 0, 0]
        return torch.zeros_like(x)


def test_a_chunk_that_is_continued_begins_clean_and_is_judged_by_the_rest() -> None:
    network, actions = Watched(), torch.randn(40, 6, 8, generator=torch.Generator().manual_seed(0))
    weights = torch.rand(6, 8, generator=torch.Generator().manual_seed(1))
    loss = flow_loss(network, None, actions, weights, 2, torch.Generator().manual_seed(2), 3)  # type: ignore[arg-type]
    clean = network.t == 0.0
    assert set(clean.sum(-1).flatten().tolist()) == {0, 1, 2, 3}
    assert torch.equal(clean, clean.cummin(-1).values)
    assert torch.equal(clean[:, 0], clean[:, 1])
    same = actions[:, None].expand_as(network.x)
    assert torch.equal(network.x[clean], same[clean])
    t = network.t[..., None]
    noise = (network.x - (1.0 - t) * same) / t
    error = ((noise - same).square() * weights)[~clean].sum() / weights.expand_as(noise)[~clean].sum()
    torch.testing.assert_close(loss, error, rtol=1e-3, atol=1e-3)


def test_recorded_batches_are_exact_and_trimmed(data: LowLevelData, tmp_path: Path) -> None:
    run = training(data, tmp_path)
    batch = run.batches.recorded(np.array([0, 1, 2, 3]), "grounded")
    images = torch.from_numpy(np.stack([data.views(index) for index in range(4)])).float() / 127.5 - 1.0
    torch.testing.assert_close(batch.images, images)
    assert batch.mask.any(0).all()
    np.testing.assert_allclose(run.stats.actions.unnormalise(batch.actions.numpy()), data.deltas[:4], atol=1e-5)


def test_without_augmentation_training_samples_are_the_recording(data: LowLevelData, tmp_path: Path) -> None:
    run = training(data, tmp_path)
    exact = Augmentation(0, 0.0, 0.0, 0.0, 0, 0.0, (1, 1), 0.0, 0.0)
    run.batches._augmentation = exact
    indices = np.array([5, 9])
    ours = run.batches.training(indices, ["grounded"] * 2, np.random.default_rng(0))
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
