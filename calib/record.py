"""Draws a calibration set from a recorded dataset: bounded, seeded, spread over what the task asks for."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrt.calib.calibration_set import (
    PROPRIOCEPTION_DECIMALS,
    SCHEMA_VERSION,
    CalibrationSet,
    Document,
    HighLevelSample,
    LowLevelSample,
    Remembered,
    Role,
    save_calibration_set,
)
from memrt.runtime.errors import MemrtError
from memrt.sim.frames import Frames, open_frames

CAMERAS = ("front", "wrist")
# Of the episodes, by number, the last: they judge and calibrate nothing. A set is drawn from episodes recorded for it,
# which no policy is trained on, so half of them are there to judge.
JUDGING = 0.5


@dataclass(frozen=True, slots=True)
class Counts:
    """How many samples of each level and role to draw."""

    low_level: int = 96
    low_level_gate: int = 48
    high_level: int = 64
    high_level_gate: int = 48


def record_calibration_set(
    dataset: str | Path, folder: str | Path, *, name: str, seed: int = 0, counts: Counts | None = None
) -> CalibrationSet:
    """Draw samples from `dataset` (its `low_level` and `high_level` folders) and write them to `folder`.

    `calibration` samples come from the first half of the episodes, `gate` samples from the second. Subgoals take turns,
    so that rare phases (pressing the button) are as well covered as long ones. Give it episodes that no policy was
    trained on: agreement on memorised moments says little.
    """
    counts = counts or Counts()
    root = Path(dataset)
    _check_dataset(root)
    # The labels are the training package's; only recording needs them, a recorded set stands alone.
    from memrt.train.labels.turns import with_spatial_memories

    low, high = _LowLevel.open(root / "low_level"), _HighLevel.open(root / "high_level")
    records = with_spatial_memories(high.records)
    measured, judging = split_episodes(sorted({*low.episodes.tolist(), *(int(r["episode"]) for r in high.records)}))
    images: dict[str, NDArray[np.uint8]] = {}
    low_samples: list[LowLevelSample] = []
    high_samples: list[HighLevelSample] = []
    plan: list[tuple[Role, set[int], int, int]] = [
        ("calibration", set(measured), counts.low_level, counts.high_level),
        ("gate", set(judging), counts.low_level_gate, counts.high_level_gate),
    ]
    for role, episodes, low_count, high_count in plan:
        rows = [i for i, episode in enumerate(low.episodes) if int(episode) in episodes]
        for i in spread(rows, [low.texts[low.subgoal_simple[i]] for i in rows], low_count, f"{seed}/low/{role}"):
            files = {camera: f"low_level/{len(low_samples):04d}_{camera}.png" for camera in CAMERAS}
            images |= {file: np.asarray(low.images[camera][i]) for camera, file in files.items()}
            low_samples.append(low.sample(i, role, files))
        rows = [i for i, record in enumerate(records) if int(record["episode"]) in episodes]
        kinds = [(records[i]["subgoal_simple"], _changed(records[i])) for i in rows]
        for i in spread(rows, kinds, high_count, f"{seed}/high/{role}"):
            file = f"high_level/{len(high_samples):04d}.png"
            images[file] = np.asarray(high.images[i])
            high_samples.append(_high_level_sample(records[i], role, file))
    document = Document(
        schema_version=SCHEMA_VERSION,
        name=name,
        seed=seed,
        splits={"calibration": _described(measured), "gate": _described(judging)},
        low_level=tuple(low_samples),
        high_level=tuple(high_samples),
        files={},
    )
    return save_calibration_set(folder, document, images)


def split_episodes(episodes: Sequence[int]) -> tuple[list[int], list[int]]:
    """(calibration, judging) episodes, at least one of each. Raises `MemrtError` below two episodes."""
    if len(episodes) < 2:
        raise MemrtError(
            "calibration needs episodes to measure and episodes to judge",
            expected="at least 2 episodes",
            found=len(episodes),
            fix="record more episodes",
        )
    first = min(int(len(episodes) * (1 - JUDGING)), len(episodes) - 1)
    return list(episodes[:first]), list(episodes[first:])


def spread(rows: Sequence[int], kinds: Sequence[Hashable], count: int, seed: str) -> list[int]:
    """Choose up to `count` of `rows` at random, kinds taking turns; sorted, and a function of its arguments only."""
    rng = random.Random(seed)
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for row, kind in zip(rows, kinds, strict=True):
        groups[kind].append(row)
    piles = [rng.sample(groups[kind], len(groups[kind])) for kind in sorted(groups, key=repr)]
    rng.shuffle(piles)
    chosen: list[int] = []
    while piles and len(chosen) < count:
        for pile in piles[: count - len(chosen)]:
            chosen.append(pile.pop())
        piles = [pile for pile in piles if pile]
    return sorted(chosen)


@dataclass(frozen=True, slots=True, eq=False)
class _LowLevel:
    """The `low_level` folder of a dataset, memory-mapped."""

    images: dict[str, Frames | NDArray[np.uint8]]
    proprioception: NDArray[np.float32]
    episodes: NDArray[np.int32]
    goal: NDArray[np.int32]
    subgoal_simple: NDArray[np.int32]
    subgoal_grounded: NDArray[np.int32]
    texts: list[str]

    @staticmethod
    def open(folder: Path) -> _LowLevel:
        images = {camera: open_frames(folder, camera) for camera in CAMERAS}
        names = ("proprioception", "episode", "goal", "subgoal_simple", "subgoal_grounded")
        arrays = {name: _array(folder / f"{name}.npy") for name in names}
        texts = _json_lines(folder / "texts.json", whole=True)[0]
        return _LowLevel(
            images=images,
            proprioception=arrays["proprioception"],
            episodes=arrays["episode"],
            goal=arrays["goal"],
            subgoal_simple=arrays["subgoal_simple"],
            subgoal_grounded=arrays["subgoal_grounded"],
            texts=texts,
        )

    def sample(self, i: int, role: Role, files: dict[str, str]) -> LowLevelSample:
        return LowLevelSample(
            role=role,
            episode=int(self.episodes[i]),
            goal=self.texts[self.goal[i]],
            subgoal_simple=self.texts[self.subgoal_simple[i]],
            subgoal_grounded=self.texts[self.subgoal_grounded[i]],
            proprioception=tuple(round(float(v), PROPRIOCEPTION_DECIMALS) for v in self.proprioception[i]),
            images=files,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _HighLevel:
    """The `high_level` folder of a dataset, memory-mapped."""

    images: Frames | NDArray[np.uint8]
    records: list[dict[str, Any]]

    @staticmethod
    def open(folder: Path) -> _HighLevel:
        return _HighLevel(open_frames(folder, "front"), _json_lines(folder / "samples.jsonl"))


def _check_dataset(root: Path) -> None:
    for level in ("low_level", "high_level"):
        if not (root / level).is_dir():
            raise MemrtError(
                f"recorded episodes {root}",
                expected="a folder with `low_level` and `high_level`",
                found=f"no `{level}` in it" if root.is_dir() else "nothing there",
                fix="name such a folder, or record one with `memrt train reference --stage record`",
            )


def _array(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise _unreadable(path, "an array in NumPy's format", error) from error
    return array


def _json_lines(path: Path, *, whole: bool = False) -> list[Any]:
    """The JSON value of every line, or with `whole` the one that the file is."""
    try:
        text = path.read_text(encoding="utf-8")
        return [json.loads(text)] if whole else [json.loads(line) for line in text.splitlines()]
    except (OSError, ValueError) as error:
        raise _unreadable(path, "JSON", error) from error


def _unreadable(path: Path, expected: str, error: Exception) -> MemrtError:
    return MemrtError(
        f"recorded episodes are incomplete: {path}",
        expected=expected,
        found="no such file" if isinstance(error, FileNotFoundError) else error,
        fix="copy them again, or record them with `memrt train reference --stage record`",
    )


def _changed(record: dict[str, Any]) -> bool:
    """Whether the subgoal is another than at the call before: the calls at which memory must be written."""
    return int(record["previous_segment"]) != int(record["segment"])


def _high_level_sample(record: dict[str, Any], role: Role, file: str) -> HighLevelSample:
    return HighLevelSample(
        role=role,
        episode=int(record["episode"]),
        step=int(record["step"]),
        goal=record["goal"],
        image=file,
        simple=_remembered(record, "simple"),
        grounded=_remembered(record, "grounded"),
    )


def _remembered(record: dict[str, Any], style: Any) -> Remembered:
    from memrt.train.labels import label_pair

    subgoal, history = record[f"subgoal_{style}"], tuple(record[f"history_{style}"])
    before, after = label_pair(record["goal"], history, subgoal, int(record["previous_segment"]), style)
    # The call before had answered `previous_segment`, so that subgoal is part of what the policy sees now.
    answered = (*history, subgoal)[: int(record["previous_segment"]) + 1]
    spatial_before, spatial_after = record[f"spatial_{style}"]
    return Remembered(
        subgoal=subgoal,
        history=tuple(filter(None, answered)),
        memory_before=before,
        memory_after=after,
        spatial_before=spatial_before,
        spatial_after=spatial_after,
    )


def _described(episodes: Sequence[int]) -> str:
    return f"{len(episodes)} episodes, {episodes[0]} to {episodes[-1]}"
