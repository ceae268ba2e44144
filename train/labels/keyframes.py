"""Which recent frames a keyframe policy should nominate: MemER's labels, by rule.

MemER's authors annotate the moments to remember by the task; the last frame of each segment that matters is one.
Frames that show what will be hidden are the others: the table before containers come, the highlights, every swap in
its middle, when the two containers are farthest from their places. A frame is nominated in every call that shows it
together with the frame that makes it one: its successor for the last frames, its predecessor for the first of the
highlights. So the label asks for nothing that the policy cannot see.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

from memrt.runtime.memory.coordinates import without_coordinates
from memrt.train.labels.scene_text import read_scene
from memrt.train.labels.spatial_hidden import CoveredCubes

# Subgoals after which the image shows all that matters: something is in the hand, or was put down last.
_NEEDS_NO_FRAME = re.compile(r"pick up .*|put the .* on the table|move to the top of the button.*")


@dataclass(frozen=True, slots=True)
class _Frame:
    segment: int
    containers: bool
    highlights: bool
    swap: int  # the swap in whose middle this frame lies, from 1, or 0


class EpisodeKeyframes:
    """The moments of one recorded episode, by control step."""

    def __init__(self, samples: Sequence[Mapping[str, Any]]) -> None:
        """`samples` are all lines of the episode in `high_level/samples.jsonl`, in order."""
        self._frames: dict[int, _Frame] = {}
        self._subgoals: dict[int, str] = {}
        swaps = _swaps(samples)
        for sample, swap in zip(samples, swaps, strict=True):
            scene = read_scene(str(sample["scene"]))
            segment = int(sample["segment"])
            self._subgoals[segment] = str(sample["subgoal_simple"])
            seen = bool(scene.of("container")), bool(scene.of("highlight"))
            self._frames[int(sample["step"])] = _Frame(segment, *seen, swap)

    def positions(self, steps: Sequence[int]) -> tuple[int, ...]:
        """Which of the frames at these control steps, oldest first, a call nominates, counted from 1."""
        frames = [self._frames[step] for step in steps]
        pairs = list(enumerate(pairwise(frames), start=1))
        hidden_later = {number for number, frame in enumerate(frames, start=1) if frame.swap}
        hidden_later |= {number for number, (one, next_one) in pairs if next_one.containers and not one.containers}
        hidden_later |= {number + 1 for number, (one, next_one) in pairs if next_one.highlights and not one.highlights}
        # Neighbours become one keyframe: a step completed there must not be shown in place of what is hidden later.
        completed = {number for number, pair in pairs if self._completed(*pair)}
        beside = {number + offset for number in hidden_later for offset in (-1, 1)}
        return tuple(sorted(hidden_later | (completed - beside)))

    def _completed(self, frame: _Frame, successor: _Frame) -> bool:
        """Whether something that matters was completed between two frames."""
        done = (self._subgoals.get(segment, "") for segment in range(frame.segment, successor.segment))
        return any(subgoal and not _NEEDS_NO_FRAME.fullmatch(subgoal) for subgoal in done)


def _swaps(samples: Sequence[Mapping[str, Any]]) -> list[int]:
    """For each sample the number of the swap whose middle it shows, from 1, or 0: the middle two of its samples."""
    notes = CoveredCubes.of_goal(without_coordinates(str(samples[0]["goal"])))
    if notes is None:
        return [0] * len(samples)
    pairs: list[tuple[int, ...]] = []
    for sample in samples:
        notes = notes.see(read_scene(str(sample["scene"])))
        pairs.append(notes.swapping)
    middles = [0] * len(samples)
    number = 0
    for pair, group in groupby(range(len(pairs)), key=pairs.__getitem__):
        indices = list(group)
        if pair and len(indices) > 1:
            number += 1
            middle = len(indices) // 2
            for index in indices[middle - 1 : middle + 1]:
                middles[index] = number
    return middles
