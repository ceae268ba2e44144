"""Reproduce the reference policies from nothing but the simulator: `memrt train reference`.

Four stages, each resumable: record the scripted expert, train the high level (base, then one adapter per policy),
train the low level, collect the weights and logs. Every seed is fixed; wall-clock budgets are not, so that a faster
machine trains longer in the same time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from memrt.runtime.config import load_policy
from memrt.runtime.errors import MemrtError
from memrt.sim.dataset import record_dataset
from memrt.sim.grounding import record_grounding
from memrt.sim.tasks import TASKS
from memrt.train.high_level_recipe import publish, train_base, train_high_level
from memrt.train.low_level_train import TrainingSettings, train_low_level

STAGES = ("record", "high_level", "low_level", "collect")
FIRST_SEED = 10_000  # evaluation seeds start at 1 000 000
EPISODES = 1400  # of all tasks together
CALIBRATION_SEED, CALIBRATION_EPISODES = 20_000, 98  # no policy is trained on these
SCENES, SCENES_SEED = 20_000, 7
# Where a first look decides the episode, or one cube has to be chosen among several of a colour, more tables are shown
# than whole episodes could be recorded of: their beginnings, until the containers stand or the highlights are off.
LOOKED_AT_FIRST = ("BinFill", "ButtonUnmask", "ButtonUnmaskSwap", "PickHighlight")
BEGINNINGS_SEED, BEGINNINGS, BEGINNING_STEPS = 80_000, 1400, 96
LOW_LEVEL_FILES = ("model.safetensors", "config.json", "tokenizer.json")


def train_reference(*, root: Path, stages: Sequence[str] | None = None, resume: bool = False) -> None:
    """Run the named stages (all of them by default) below `root`; weights end in `root/weights`, logs in `root/logs`.

    Raises MemrtError for an unknown stage, and for a root that already holds a run unless `resume` is set.
    """
    wanted = tuple(stages or STAGES)
    unknown = [stage for stage in wanted if stage not in STAGES]
    if unknown:
        raise MemrtError("unknown stage", expected=f"some of {', '.join(STAGES)}", found=unknown, fix="correct --stage")
    if root.exists() and any(root.iterdir()) and not resume:
        raise MemrtError(f"run folder {root}", expected="an empty folder", found="an earlier run", fix="add --resume")
    data, beginnings, threads = root / "data", root / "beginnings", os.cpu_count() or 1
    if "record" in wanted:
        _record(data, range(FIRST_SEED, FIRST_SEED + EPISODES), threads)
        begun = range(BEGINNINGS_SEED, BEGINNINGS_SEED + BEGINNINGS)
        _record(beginnings, begun, threads, LOOKED_AT_FIRST, BEGINNING_STEPS)
        _record(root / "calibration", range(CALIBRATION_SEED, CALIBRATION_SEED + CALIBRATION_EPISODES), threads)
        _record_scenes(data / "grounding")
    if "high_level" in wanted:
        train_high_level([data, beginnings], root / "high_level", threads=threads)
    if "low_level" in wanted:
        settings = TrainingSettings(threads=threads)
        train_low_level(
            [data / "low_level", beginnings / "low_level"], root / "low_level", settings=settings, resume=True
        )
    if "collect" in wanted:
        _collect(root, threads)


def _record(
    data: Path, seeds: range, workers: int, tasks: Sequence[str] = tuple(TASKS), steps: int | None = None
) -> None:
    image_size = load_policy("am_grounded").low_level.image_size
    with _progress() as progress:
        bar = progress.add_task(f"expert episodes for {data.name}", total=len(seeds))
        for _ in record_dataset(data, tasks, seeds, image_size, workers, steps=steps):
            progress.advance(bar)


def _record_scenes(folder: Path) -> None:
    if not (folder / "DONE").exists():
        with _progress() as progress:
            bar = progress.add_task("still scenes", total=SCENES)
            record_grounding(folder, SCENES, SCENES_SEED, lambda n: progress.update(bar, completed=n), list(TASKS))


def _progress() -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


def _collect(root: Path, threads: int) -> None:
    weights, logs = root / "weights", root / "logs"
    high_level = root / "high_level"
    publish(high_level, train_base([root / "data", root / "beginnings"], high_level, threads), weights, logs)
    folder = weights / "low_level"
    folder.mkdir(parents=True, exist_ok=True)
    for name in LOW_LEVEL_FILES:
        shutil.copyfile(root / "low_level" / name, folder / name)
    shutil.copytree(root / "low_level" / "assets", folder / "assets", dirs_exist_ok=True)
    shutil.copyfile(root / "low_level" / "log.jsonl", logs / "low_level.jsonl")
