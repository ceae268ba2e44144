"""Datasets on disk: one folder per episode while recording, memory-mapped arrays for training.

Recording is resumable (an episode whose `DONE` file exists is kept) and needs memory for one episode per worker.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from memrt.sim.record import EpisodeRecord, record_episode

LOW_ARRAYS = ("front", "wrist", "proprioception", "actions")
LOW_TEXTS = ("subgoal_simple", "subgoal_grounded", "goal")


def write_episode(folder: Path, record: EpisodeRecord) -> None:
    """Write one episode: stacked arrays of both levels and `samples.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    low = record.low_level
    np.save(folder / "low_front.npy", np.stack([s.images["front"] for s in low]))
    np.save(folder / "low_wrist.npy", np.stack([s.images["wrist"] for s in low]))
    np.save(folder / "low_proprioception.npy", np.stack([s.proprioception for s in low]).astype(np.float32))
    np.save(folder / "low_actions.npy", np.stack([s.actions for s in low]).astype(np.float32))
    texts = [
        {"subgoal_simple": s.subgoal_simple, "subgoal_grounded": s.subgoal_grounded, "goal": record.goal} for s in low
    ]
    (folder / "low_texts.json").write_text(json.dumps(texts))
    np.save(folder / "high_front.npy", np.stack([s.image for s in record.high_level]))
    lines = (json.dumps({"episode": record.seed, **s.labels}) + "\n" for s in record.high_level)
    (folder / "high_samples.jsonl").write_text("".join(lines))
    (folder / "DONE").write_text(json.dumps({"success": record.success, "reason": record.reason}))


def record_dataset(
    root: Path, task: str, seeds: Sequence[int], image_size: int, workers: int
) -> Iterable[tuple[int, bool]]:
    """Record the episodes that are missing below `root/episodes`; yields (seed, success) as they finish."""
    job = partial(_record_one, root, task, image_size)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(job, seeds)


def _record_one(root: Path, task: str, image_size: int, seed: int) -> tuple[int, bool]:
    folder = root / "episodes" / f"{seed:06d}"
    if not (folder / "DONE").exists():
        write_episode(folder, record_episode(task, seed, image_size))
    return seed, bool(json.loads((folder / "DONE").read_text())["success"])


def consolidate(root: Path, seeds: Sequence[int]) -> None:
    """Join recorded episodes into `root/low_level` and `root/high_level`, each finished by a `DONE` file."""
    folders = [root / "episodes" / f"{seed:06d}" for seed in seeds]
    low, high = root / "low_level", root / "high_level"
    for folder in (low, high):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "DONE").unlink(missing_ok=True)
    for name in LOW_ARRAYS:
        _concatenate([folder / f"low_{name}.npy" for folder in folders], low / f"{name}.npy")
    texts: dict[str, int] = {}
    columns: dict[str, list[int]] = {name: [] for name in LOW_TEXTS}
    episodes: list[int] = []
    for seed, folder in zip(seeds, folders, strict=True):
        rows = json.loads((folder / "low_texts.json").read_text())
        episodes += [seed] * len(rows)
        for row in rows:
            for name in LOW_TEXTS:
                columns[name].append(texts.setdefault(row[name], len(texts)))
    for name, indices in columns.items():
        np.save(low / f"{name}.npy", np.array(indices, dtype=np.int32))
    np.save(low / "episode.npy", np.array(episodes, dtype=np.int32))
    (low / "texts.json").write_text(json.dumps(list(texts)))
    _concatenate([folder / "high_front.npy" for folder in folders], high / "front.npy")
    lines = "".join((folder / "high_samples.jsonl").read_text() for folder in folders)
    (high / "samples.jsonl").write_text(lines)
    np.save(
        high / "episode.npy", np.array([json.loads(line)["episode"] for line in lines.splitlines()], dtype=np.int32)
    )
    for folder in (low, high):
        (folder / "DONE").write_text(f"{len(seeds)} episodes\n")


def _concatenate(parts: Sequence[Path], out: Path) -> None:
    """Join arrays along their first axis, one part in memory at a time; whoever has `out` mapped keeps the old one."""
    shapes = [np.load(part, mmap_mode="r").shape for part in parts]
    dtype = np.load(parts[0], mmap_mode="r").dtype
    growing = out.with_suffix(".part")
    joined = np.lib.format.open_memmap(growing, "w+", dtype, (sum(s[0] for s in shapes), *shapes[0][1:]))
    start = 0
    for part, shape in zip(parts, shapes, strict=True):
        joined[start : start + shape[0]] = np.load(part)
        start += shape[0]
    joined.flush()
    growing.replace(out)
