"""Recorded episodes on disk: joined in order, failed ones left out, readers never short of a picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from memrt.sim.dataset import Recorded, consolidate, episode_folder, write_episode
from memrt.sim.frames import open_frames
from memrt.sim.record import EpisodeRecord, HighLevelSample, LowLevelSample


def write(root: Path, task: str, seed: int, samples: int, *, usable: bool = True) -> Recorded:
    """An episode in which everything says its seed."""
    record = EpisodeRecord(task, "easy", seed, f"goal {seed}", success=usable, usable=usable)
    for step in range(samples):
        image = np.full((4, 4, 3), seed + step, np.uint8)
        low = LowLevelSample({"front": image, "wrist": image + 1}, np.full(8, seed), np.full((2, 8), step), "do", "it")
        record.low_level.append(low)
        record.high_level.append(HighLevelSample(image, {"task": task, "step": 4 * step}))
    folder = episode_folder(root, task, seed)
    write_episode(folder, record)
    return Recorded.load(folder)


def test_usable_episodes_are_joined_in_the_order_given(tmp_path: Path) -> None:
    episodes = [
        write(tmp_path, "BinFill", 7, 2),
        write(tmp_path, "StopCube", 8, 3, usable=False),
        write(tmp_path, "StopCube", 3, 1),
    ]
    consolidate(tmp_path, episodes)
    low, high = tmp_path / "low_level", tmp_path / "high_level"
    assert np.load(low / "episode.npy").tolist() == [7, 7, 3]
    assert np.load(low / "proprioception.npy")[:, 0].tolist() == [7, 7, 3]
    texts = json.loads((low / "texts.json").read_text())
    assert [texts[i] for i in np.load(low / "task.npy")] == ["BinFill", "BinFill", "StopCube"]
    assert [texts[i] for i in np.load(low / "goal.npy")] == ["goal 7", "goal 7", "goal 3"]
    records = [json.loads(line) for line in (high / "samples.jsonl").read_text().splitlines()]
    assert [(record["episode"], record["step"]) for record in records] == [(7, 0), (7, 4), (3, 0)]
    for folder, name, brightest in ((high, "front", [7, 8, 3]), (low, "front", [7, 8, 3]), (low, "wrist", [8, 9, 4])):
        assert [int(image.max()) for image in np.asarray(open_frames(folder, name))] == brightest


def test_more_episodes_keep_the_samples_that_were_there(tmp_path: Path) -> None:
    first, second = write(tmp_path, "BinFill", 1, 2), write(tmp_path, "StopCube", 2, 2)
    consolidate(tmp_path, [first])
    front = open_frames(tmp_path / "high_level", "front")
    consolidate(tmp_path, [first, second])
    again = open_frames(tmp_path / "high_level", "front")
    assert (len(front), len(again)) == (2, 4)
    np.testing.assert_array_equal(np.asarray(again)[:2], np.asarray(front))
