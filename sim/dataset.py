"""Datasets on disk: one folder per episode while recording, joined into one folder per level for training.

Recording is resumable (an episode whose `DONE` file exists is kept) and needs memory for one episode per worker. The
joined folders can be written anew while others read them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from memrt.sim.frames import SUFFIX, join_frames, write_frames
from memrt.sim.record import EpisodeRecord, record_episode

CAMERAS = ("front", "wrist")
LOW_ARRAYS = ("proprioception", "actions")
LOW_TEXTS = ("subgoal_simple", "subgoal_grounded", "goal", "task")
DONE = "DONE"
JOIN_EVERY_S = 180.0


@dataclass(frozen=True, slots=True)
class Recorded:
    """A finished episode. One that is not `usable` (failed, above all) is not trained on."""

    task: str
    seed: int
    success: bool
    usable: bool
    reason: str

    @staticmethod
    def load(folder: Path) -> Recorded:
        """Read an episode's folder, `<task>/<seed>`."""
        told = json.loads((folder / DONE).read_text(encoding="utf-8"))
        return Recorded(folder.parent.name, int(folder.name), told["success"], told["usable"], told["reason"])


def episode_folder(root: Path, task: str, seed: int) -> Path:
    """Where an episode is recorded."""
    return root / "episodes" / task / f"{seed:06d}"


def write_episode(folder: Path, record: EpisodeRecord) -> None:
    """Write one episode: pictures and arrays of both levels, `low_texts.json` and `high_samples.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    low = record.low_level
    for camera in CAMERAS:
        write_frames(folder / f"low_{camera}{SUFFIX}", (s.images[camera] for s in low))
    np.save(folder / "low_proprioception.npy", np.stack([s.proprioception for s in low]).astype(np.float32))
    np.save(folder / "low_actions.npy", np.stack([s.actions for s in low]).astype(np.float32))
    spoken = [(s.subgoal_simple, s.subgoal_grounded, record.goal, record.task) for s in low]
    texts = [dict(zip(LOW_TEXTS, row, strict=True)) for row in spoken]
    (folder / "low_texts.json").write_text(json.dumps(texts), encoding="utf-8")
    write_frames(folder / f"high_front{SUFFIX}", (s.image for s in record.high_level))
    lines = (json.dumps({"episode": record.seed, **s.labels}) + "\n" for s in record.high_level)
    (folder / "high_samples.jsonl").write_text("".join(lines), encoding="utf-8")
    outcome = {"success": record.success, "usable": record.usable, "reason": record.reason}
    (folder / DONE).write_text(json.dumps(outcome), encoding="utf-8")


def record_dataset(
    root: Path,
    tasks: Sequence[str],
    seeds: Sequence[int],
    image_size: int,
    workers: int,
    bundle: Path | None = None,
    steps: int | None = None,
) -> Iterator[Recorded]:
    """Record what is missing below `root/episodes`, tasks taking turns; yields the episodes in the seeds' order.

    Of each its first `steps` control steps, or all of it.

    The expert moves the arm, or the low level of `bundle`. Both levels are joined now and then, so that training can
    begin before the last episode, and at the end.
    """
    jobs = [(tasks[number % len(tasks)], seed) for number, seed in enumerate(seeds)]
    recorded: list[Recorded] = []
    joined = time.monotonic()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for episode in pool.map(partial(_record_one, root, image_size, bundle, steps), jobs):
            recorded.append(episode)
            yield episode
            if time.monotonic() - joined > JOIN_EVERY_S:
                consolidate(root, recorded)
                joined = time.monotonic()
    consolidate(root, recorded)


def _record_one(root: Path, image_size: int, bundle: Path | None, steps: int | None, job: tuple[str, int]) -> Recorded:
    task, seed = job
    folder = episode_folder(root, task, seed)
    if not (folder / DONE).exists():
        write_episode(folder, record_episode(task, seed, image_size, bundle=bundle, steps=steps))
    return Recorded.load(folder)


def consolidate(root: Path, episodes: Sequence[Recorded]) -> None:
    """Join the usable ones of `episodes` into `root/low_level` and `root/high_level`, each with a `DONE` file.

    Only growing lists of episodes keep the samples' numbers. Every file is replaced as a whole: pictures first, then
    arrays, texts and what refers to them. Who reads in the opposite order finds at least what is referred to.
    """
    kept = [episode for episode in episodes if episode.usable]
    folders = [episode_folder(root, episode.task, episode.seed) for episode in kept]
    low, high = root / "low_level", root / "high_level"
    for folder in (low, high):
        folder.mkdir(parents=True, exist_ok=True)
    _join_low_level(low, folders, [episode.seed for episode in kept])
    join_frames(high / f"front{SUFFIX}", [folder / f"high_front{SUFFIX}" for folder in folders])
    lines = "".join((folder / "high_samples.jsonl").read_text(encoding="utf-8") for folder in folders)
    _replace_text(high / "samples.jsonl", lines)
    for folder in (low, high):
        _replace_text(folder / DONE, f"{len(kept)} episodes\n")


def _join_low_level(low: Path, folders: Sequence[Path], seeds: Sequence[int]) -> None:
    for camera in CAMERAS:
        join_frames(low / f"{camera}{SUFFIX}", [folder / f"low_{camera}{SUFFIX}" for folder in folders])
    for name in LOW_ARRAYS:
        _replace_array(low / f"{name}.npy", np.concatenate([np.load(folder / f"low_{name}.npy") for folder in folders]))
    texts: dict[str, int] = {}
    columns: dict[str, list[int]] = {name: [] for name in LOW_TEXTS}
    episodes: list[int] = []
    for seed, folder in zip(seeds, folders, strict=True):
        rows = json.loads((folder / "low_texts.json").read_text(encoding="utf-8"))
        episodes += [seed] * len(rows)
        for row in rows:
            for name in LOW_TEXTS:
                columns[name].append(texts.setdefault(row[name], len(texts)))
    _replace_text(low / "texts.json", json.dumps(list(texts)))
    for name, indices in columns.items():
        _replace_array(low / f"{name}.npy", np.array(indices, dtype=np.int32))
    _replace_array(low / "episode.npy", np.array(episodes, dtype=np.int32))


def _replace_array(path: Path, array: np.ndarray) -> None:
    partial_path = path.with_suffix(".partial")
    with partial_path.open("wb") as file:
        np.save(file, array)
    partial_path.replace(path)


def _replace_text(path: Path, text: str) -> None:
    partial_path = path.with_suffix(".partial")
    partial_path.write_text(text, encoding="utf-8")
    partial_path.replace(path)
