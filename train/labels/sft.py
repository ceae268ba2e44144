"""Supervised fine-tuning data in ms-swift's format: one JSON line for each call, and the images it shows as PNG.

`messages` are the turns as the runtime asks them; `images` fill the user's `<image>`s in order, as absolute paths.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from memrt.runtime.config import PolicyConfig
from memrt.runtime.errors import MemrtError
from memrt.sim.frames import open_frames, png
from memrt.train.labels.chains import MemoryLabels, RuleLabels, Sample, Turn, turns

VALIDATION_EVERY = 25  # one episode in so many
CAMERA = "front"  # the recorded one


class Recording:
    """A data set's high-level samples and their front frames."""

    def __init__(self, root: Path) -> None:
        """`root` is what `memrt sim record` or `memrt train import` wrote. Raises MemrtError where it holds neither."""
        folder = root / "high_level"
        try:
            lines = (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise MemrtError(
                f"recorded episodes {root}",
                expected="a folder with high_level/samples.jsonl",
                found=error,
                fix="record them with `memrt sim record`, or bring them in with `memrt train import`",
            ) from error
        self.samples: list[Sample] = [json.loads(line) for line in lines]
        self._frames = open_frames(folder, CAMERA)
        self._number = {_name(sample): number for number, sample in enumerate(self.samples)}

    def episodes(self) -> Iterator[list[Sample]]:
        """The samples, episode by episode."""
        for _, group in groupby(self.samples, key=lambda sample: (sample.get("task"), sample["episode"])):
            yield list(group)

    def front(self, sample: Sample) -> bytes:
        """A sample's front image as PNG."""
        return png(self._frames, self._number[_name(sample)])


@dataclass(frozen=True, slots=True)
class Written:
    """What was written."""

    episodes: int
    training: int
    validation: int
    images: int


def write_sft(
    recording: Recording,
    policy: PolicyConfig,
    folder: Path,
    labels: MemoryLabels | None = None,
    phases: Sequence[int] = (0,),
    jobs: int = 1,
    progress: Callable[[int], None] = lambda episodes: None,
) -> Written:
    """Write `train.jsonl`, `validation.jsonl` and `images/` below `folder`; the two files appear when all is there.

    One episode in `VALIDATION_EVERY` is for validation. `jobs` episodes are labelled at a time, which pays with an
    endpoint. Raises MemrtError for a policy that looks at more than the recorded camera.
    """
    _check_views(policy)
    images = folder.resolve() / "images"
    images.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[str]] = {"train": [], "validation": []}
    shown: set[str] = set()
    episodes = list(recording.episodes())

    def label(episode: list[Sample]) -> list[Turn]:
        return list(turns(policy.memory, episode, labels or RuleLabels(), phases))

    with ThreadPoolExecutor(jobs) as pool:
        for number, (episode, labelled) in enumerate(zip(episodes, pool.map(label, episodes), strict=True), start=1):
            for turn in labelled:
                paths = [images / f"{_name(episode[image])}.png" for image in turn.images]
                for image, path in zip(turn.images, paths, strict=True):
                    if path.name not in shown:
                        path.write_bytes(recording.front(episode[image]))
                        shown.add(path.name)
                rows["validation" if number % VALIDATION_EVERY == 0 else "train"].append(json.dumps(_row(turn, paths)))
            progress(number)
    for name, lines in rows.items():
        partial = folder / f"{name}.jsonl.partial"
        partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        partial.replace(folder / f"{name}.jsonl")
    return Written(len(episodes), len(rows["train"]), len(rows["validation"]), len(shown))


def _row(turn: Turn, images: Sequence[Path]) -> dict[str, Any]:
    chat = [("system", turn.request.system), ("user", turn.request.user), ("assistant", turn.reply)]
    return {
        "messages": [{"role": role, "content": content} for role, content in chat if content],
        "images": [str(path) for path in images],
    }


def _name(sample: Sample) -> str:
    return f"{sample.get('task', 'episode')}-{int(sample['episode']):06d}-{int(sample['step']):04d}"


def _check_views(policy: PolicyConfig) -> None:
    views = policy.memory.keyframes.views if policy.memory.keyframes else (policy.high_level.camera,)
    if tuple(views) != (CAMERA,):
        raise MemrtError(
            f"training data for `{policy.name}`",
            expected=f"a policy that looks through the {CAMERA} camera, the one that is recorded at its full size",
            found=", ".join(views),
            fix=f"set the policy's views to [{CAMERA}]",
        )
