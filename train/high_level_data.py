"""What the high-level policy learns from: recorded frames and the chats asked about them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from memrt.runtime.config import MemoryConfig
from memrt.train import task_language
from memrt.train.high_level_frames import Block, FrameIndex
from memrt.train.high_level_text import Encoded, Example, ExampleEncoder
from memrt.train.labels.chains import CALL_EVERY, turns
from memrt.train.labels.turns import with_spatial_memories
from memrt.train.task_scripts import draw_script, task_of

ASSISTANT = "You are a helpful assistant."
DESCRIBE = "<image>Describe the scene."
REPEAT = "Repeat the text: {text}"
HELD_OUT = 25  # one layout or episode in so many is kept for the held-out metrics
POSES_PER_LAYOUT = 4  # consecutive scenes that share a layout
SCENES_PER_BLOCK = 16
EVERY = CALL_EVERY // 2  # control steps between the recorded frames that are used

ExampleSource = Callable[[random.Random], Example]


@dataclass(frozen=True, slots=True)
class Scenes:
    """Random still scenes: one description for each of `frames`."""

    frames: FrameIndex
    descriptions: list[str]

    @staticmethod
    def load(folder: Path, every: int = 1) -> Scenes:
        """Read what `memrt.sim.grounding` recorded in `folder`, or every so many scenes of it."""
        lines = (folder / "scenes.jsonl").read_text().splitlines()[::every]
        rows = range(0, every * len(lines), every)
        blocks = (
            Block(f"grounding/{rows[first]:06d}", folder, "front", rows[first : first + SCENES_PER_BLOCK])
            for first in range(0, len(lines), SCENES_PER_BLOCK)
        )
        return Scenes(FrameIndex(tuple(blocks)), [json.loads(line)["scene"] for line in lines])

    def split(self) -> tuple[list[int], list[int]]:
        """Indices for training and for the held-out metrics, by layout."""
        rows = [row for block in self.frames.blocks for row in block.rows]
        held_out = [row // POSES_PER_LAYOUT % HELD_OUT == HELD_OUT - 1 for row in rows]
        return [i for i, held in enumerate(held_out) if not held], [i for i, held in enumerate(held_out) if held]


@dataclass(frozen=True, slots=True)
class Calls:
    """Frames at which the expert's episodes asked for a subgoal, one record each; an episode's follow each other."""

    frames: FrameIndex
    records: list[dict[str, Any]]

    @staticmethod
    def load(*folders: Path, memories: Sequence[MemoryConfig] = ()) -> Calls:
        """Read what `memrt.sim` recorded: `high_level` folders, or `episodes` folders, which may still be growing.

        Records also hold what policies with these `memories` need of all that was recorded between the calls: the
        spatial memories, and as `keyframe_turn` the chat of a policy that remembers in pictures.
        """
        parts = [part for folder in folders for part in _parts(folder, memories)]
        records = [record for _, episode in parts for record in episode]
        return Calls(FrameIndex(tuple(block for block, _ in parts)), records)

    def split(self) -> tuple[list[int], list[int]]:
        """Indices for training and for the held-out metrics, by episode: the same however many are recorded."""
        held_out = [record["episode"] % HELD_OUT == HELD_OUT - 1 for record in self.records]
        return [i for i, held in enumerate(held_out) if not held], [i for i, held in enumerate(held_out) if held]

    def by_task(self, indices: Sequence[int]) -> dict[str, list[int]]:
        """`indices` by the task of their episode."""
        tasks: dict[str, list[int]] = {}
        for index in indices:
            tasks.setdefault(self.records[index]["task"], []).append(index)
        return tasks


def _parts(folder: Path, memories: Sequence[MemoryConfig]) -> Iterator[tuple[Block, list[dict[str, Any]]]]:
    if (folder / "samples.jsonl").exists():
        records = _read_records(folder / "samples.jsonl")
        for _, group in groupby(enumerate(records), key=lambda numbered: (numbered[1]["task"], numbered[1]["episode"])):
            yield _thinned(folder, "front", list(group), memories)
        return
    for done in sorted(folder.glob("*/*/DONE")):
        if json.loads(done.read_text()).get("usable", True):
            records = _read_records(done.parent / "high_samples.jsonl")
            yield _thinned(done.parent, "high_front", list(enumerate(records)), memories)


def _thinned(
    folder: Path, pictures: str, episode: list[tuple[int, dict[str, Any]]], memories: Sequence[MemoryConfig]
) -> tuple[Block, list[dict[str, Any]]]:
    """One frame between two calls is kept: neighbours teach the same."""
    records = _with_memories([record for _, record in episode], memories)
    kept = [(row, record) for (row, _), record in zip(episode, records, strict=True) if record["step"] % EVERY == 0]
    name = f"{kept[0][1]['task']}/{kept[0][1]['episode']:06d}"
    return Block(name, folder, pictures, [row for row, _ in kept]), [record for _, record in kept]


def _with_memories(records: list[dict[str, Any]], memories: Sequence[MemoryConfig]) -> list[dict[str, Any]]:
    """The records of an episode with spatial memories and with the turns of a keyframe policy, where asked for.

    Such a turn's images are named by control step.
    """
    labelled = with_spatial_memories(records) if any(memory.spatial for memory in memories) else records
    for memory in memories:
        if memory.kind == "keyframes":
            for turn in turns(memory, records, phases=range(0, CALL_EVERY, EVERY)):
                steps = tuple(int(records[image]["step"]) for image in turn.images)
                labelled[turn.sample]["keyframe_turn"] = replace(turn, images=steps)
    return labelled


def _read_records(path: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        if "task" not in record:  # recorded before there were several
            record["task"] = task_of(record["goal"])
    return records


def describe_source(scenes: Scenes, indices: Sequence[int]) -> ExampleSource:
    """Frame to description with pixel coordinates."""

    def draw(rng: random.Random) -> Example:
        index = rng.choice(indices)
        return Example((index,), ASSISTANT, DESCRIBE, scenes.descriptions[index])

    return draw


def repeat_source() -> ExampleSource:
    """Text only: say again what was said. A language model comes with this; copying a memory builds on it."""

    def draw(rng: random.Random) -> Example:
        text = random_text(rng)
        return Example((), ASSISTANT, REPEAT.format(text=text), text)

    return draw


def random_text(rng: random.Random) -> str:
    """One to three sentences of the tasks' language with random objects, pixels and counts, sometimes in tags."""

    def sentence() -> str:
        kind = rng.random()
        if kind < 0.7:
            script = draw_script(rng)
            return rng.choice(script.grounded if rng.random() < 0.7 else script.simple)
        if kind < 0.8:
            return draw_script(rng).goal
        if kind < 0.85:
            return "No actions had been completed yet."
        return " ".join(rng.choice(_WORDS) for _ in range(rng.randint(3, 9)))

    text = " ".join(sentence() for _ in range(rng.randint(1, 3)))
    return f"{sentence()}\n<mem>{text}</mem>" if rng.random() < 0.4 else text


_WORDS = sorted({word.strip(".,;:()?") for line in task_language.corpus() for word in line.split() if "<" not in word})


def mixture(sources: Sequence[tuple[float, ExampleSource]]) -> ExampleSource:
    """Draw from one source or another, by weight."""
    weights = [weight for weight, _ in sources]

    def draw(rng: random.Random) -> Example:
        return rng.choices(sources, weights)[0][1](rng)

    return draw


def batches(
    source: ExampleSource, encoder: ExampleEncoder, size: int, seed: int, first: int = 0, pool: int = 8
) -> Iterator[list[Encoded]]:
    """Endless batches of `size` texts of similar length, from batch number `first` on.

    A pool of `pool` batches is drawn, sorted by length, cut and shuffled. Batch k depends on (seed, k) only, so a
    resumed run continues with the same data.
    """
    number = first
    while True:
        block = number // pool
        rng = random.Random(f"{seed}/{block}")
        drawn = sorted((encoder.encode(source(rng)) for _ in range(size * pool)), key=lambda row: len(row.ids))
        cut = [drawn[start : start + size] for start in range(0, len(drawn), size)]
        rng.shuffle(cut)
        for batch in cut[number % pool :]:
            yield batch
            number += 1
