"""What the high-level policy learns from: recorded frames and the chats asked about them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrt.sim.frames import Frames, open_frames
from memrt.train import task_language
from memrt.train.high_level_text import Encoded, Example, ExampleEncoder

ASSISTANT = "You are a helpful assistant."
DESCRIBE = "<image>Describe the scene."
REPEAT = "Repeat the text: {text}"
HELD_OUT = 0.04  # share of scenes or episodes kept for the held-out metrics

ExampleSource = Callable[[random.Random], Example]


@dataclass(frozen=True, slots=True)
class Scenes:
    """Random still scenes: `images` uint8 [n, 256, 256, 3] on disk, one description each."""

    images: Frames | NDArray[np.uint8]
    descriptions: list[str]

    @staticmethod
    def load(folder: Path) -> Scenes:
        """Read the folder that `memrt.sim` recorded."""
        lines = (folder / "scenes.jsonl").read_text().splitlines()
        images = open_frames(folder, "front")
        return Scenes(images[: len(lines)], [json.loads(line)["scene"] for line in lines])

    def split(self) -> tuple[range, range]:
        """Indices for training and for the held-out metrics; neighbours share a layout, so the tail is held out."""
        first = int(len(self.descriptions) * (1 - HELD_OUT)) // 4 * 4
        return range(first), range(first, len(self.descriptions))


@dataclass(frozen=True, slots=True)
class Calls:
    """Frames at which the expert's episodes asked for a subgoal: `images` uint8 [n, 256, 256, 3], one record each."""

    images: Frames | NDArray[np.uint8]
    records: list[dict[str, Any]]

    @staticmethod
    def load(folder: Path) -> Calls:
        """Read the folder that `memrt.sim` recorded."""
        records = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
        images = open_frames(folder, "front")
        return Calls(images[: len(records)], records)

    def split(self) -> tuple[list[int], list[int]]:
        """Indices for training and for the held-out metrics, by episode."""
        episodes = sorted({record["episode"] for record in self.records})
        held_out = set(episodes[int(len(episodes) * (1 - HELD_OUT)) :])
        train = [i for i, record in enumerate(self.records) if record["episode"] not in held_out]
        return train, [i for i, record in enumerate(self.records) if record["episode"] in held_out]


def describe_source(scenes: Scenes, indices: Sequence[int]) -> ExampleSource:
    """Frame to description with pixel coordinates."""

    def draw(rng: random.Random) -> Example:
        index = rng.choice(indices)
        return Example(index, ASSISTANT, DESCRIBE, scenes.descriptions[index])

    return draw


def repeat_source() -> ExampleSource:
    """Text only: say again what was said. A language model comes with this; copying a memory builds on it."""

    def draw(rng: random.Random) -> Example:
        text = random_text(rng)
        return Example(-1, ASSISTANT, REPEAT.format(text=text), text)

    return draw


def random_text(rng: random.Random) -> str:
    """One to three sentences of the tasks' language with random objects, pixels and counts, sometimes in tags."""

    def pixel() -> str:
        return f" <{rng.randrange(256)}, {rng.randrange(256)}>" if rng.random() < 0.7 else ""

    def sentence() -> str:
        colour = rng.choice(task_language.COLOURS)
        count, ordinal = rng.choice(task_language.TIMES), rng.choice(task_language.ORDINALS)
        return rng.choice(
            (
                f"I picked up the {colour} cube{pixel()} {count}.",
                f"I placed the {colour} cube on the target{pixel()} {count}.",
                f"I placed the {colour} cube on the target{pixel()} {count} and picked it up a {ordinal} time.",
                f"I am holding the {colour} cube{pixel()}.",
                f"I pressed the button{pixel()}.",
                f"pick up the {colour} cube{pixel()} for the {ordinal} time",
                f"place the {colour} cube onto the target{pixel()}",
                f"press the button{pixel()} to stop",
                "No actions had been completed yet.",
                " ".join(rng.choice(_WORDS) for _ in range(rng.randint(3, 9))),
            )
        )

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
