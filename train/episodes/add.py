"""Adds episodes of any source to a dataset folder, beside those that the simulator recorded there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from memrt.runtime.config import LowLevelConfig
from memrt.runtime.errors import MemrtError
from memrt.sim.dataset import DONE, Recorded, consolidate, episode_folder, write_episode
from memrt.train.episodes.demonstration import Demonstration, samples
from memrt.train.episodes.lerobot import Columns, lerobot_episodes
from memrt.train.episodes.recorded_run import recorded_run

FIRST_NUMBER = 500_001  # above the simulator's training seeds, below those that evaluations use
_TASK = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True, slots=True)
class Added:
    """One episode: how many samples it gave; none where it was there already or failed."""

    source: str
    task: str
    number: int
    low_level: int = 0
    high_level: int = 0
    skipped: str = ""


def add_episodes(
    root: Path, source: Path, settings: LowLevelConfig, columns: Columns, task: str | None = None
) -> Iterator[Added]:
    """Write every episode of `source` below `root/episodes`; `join` then makes training data of it.

    A source that was added before is skipped. Failed runs are not trained on. Raises MemrtError for what cannot be
    read or does not fit.
    """
    sources = _Sources(root)
    for demonstration in _episodes(source.resolve(), columns, task):
        if not _TASK.fullmatch(demonstration.task):
            raise MemrtError(
                "task", expected="a word, which a folder can be called", found=demonstration.task, fix="give --task"
            )
        if (number := sources.known(demonstration)) is not None:
            yield Added(demonstration.source, demonstration.task, number, skipped="added before")
            continue
        number = sources.next_number(demonstration.task)
        if not demonstration.success:
            reason = demonstration.reason or "without a last word"
            yield Added(demonstration.source, demonstration.task, number, skipped=f"not successful: {reason}")
            continue
        record = samples(demonstration, number, settings)
        write_episode(episode_folder(root, demonstration.task, number), record)
        sources.add(demonstration, number)
        yield Added(demonstration.source, demonstration.task, number, len(record.low_level), len(record.high_level))


def join(root: Path) -> int:
    """Join all finished episodes below `root`, recorded and added, for training; how many there are."""
    found = [Recorded.load(path.parent) for path in sorted((root / "episodes").glob(f"*/*/{DONE}"))]
    consolidate(root, found)
    return len(found)


def _episodes(source: Path, columns: Columns, task: str | None) -> Iterator[Demonstration]:
    if source.is_dir() and (source / "meta" / "info.json").is_file():
        yield from lerobot_episodes(source, columns, task)
    elif source.is_dir() and (runs := sorted(source.glob("*.mcap"))):
        yield from (recorded_run(run, task) for run in runs)
    elif source.is_file():
        yield recorded_run(source, task)
    else:
        raise MemrtError(
            f"source {source}",
            expected="a recording (.mcap), a folder of them, or a LeRobot dataset (a folder with meta/info.json)",
            found="a folder with neither" if source.is_dir() else "nothing there",
            fix="name another one",
        )


class _Sources:
    """`root/added.json`: the number of every source's episode, so that none is added twice."""

    def __init__(self, root: Path) -> None:
        self._root, self._path = root, root / "added.json"
        self._numbers: dict[str, int] = json.loads(self._path.read_text()) if self._path.is_file() else {}

    def known(self, demonstration: Demonstration) -> int | None:
        number = self._numbers.get(_key(demonstration))
        done = number is not None and (episode_folder(self._root, demonstration.task, number) / DONE).is_file()
        return number if done else None

    def next_number(self, task: str) -> int:
        number = FIRST_NUMBER
        while episode_folder(self._root, task, number).exists():
            number += 1
        return number

    def add(self, demonstration: Demonstration, number: int) -> None:
        self._numbers[_key(demonstration)] = number
        self._root.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._numbers, indent=1))


def _key(demonstration: Demonstration) -> str:
    return f"{demonstration.task}: {demonstration.source}"
