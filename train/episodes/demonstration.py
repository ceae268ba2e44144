"""An episode from anywhere, and the samples of both levels that are taken from it: those that `sim/record.py` takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from memrt.runtime.clock import NS_PER_S
from memrt.runtime.config import LowLevelConfig
from memrt.runtime.errors import MemrtError
from memrt.runtime.memory.coordinates import without_coordinates
from memrt.runtime.policy.chunking import sample
from memrt.runtime.policy.preprocess import resize_with_pad
from memrt.sim.dataset import CAMERAS
from memrt.sim.record import HIGH_LEVEL_EVERY, SAMPLE_EVERY, EpisodeRecord, HighLevelSample, LowLevelSample
from memrt.sim.scene import IMAGE_SIZE

Image: TypeAlias = NDArray[np.uint8]
Views: TypeAlias = dict[str, Image]  # by camera, uint8 [height, width, 3]
ACTION_DIM = 8  # seven joints [rad], gripper opening of 0 to 1


@dataclass(frozen=True, slots=True)
class Spoken:
    """A subgoal from `t_ns` on, as it was said; grounded where it holds coordinates."""

    t_ns: int
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Demonstration:
    """One episode. `times_ns` int64 [n], ascending, are the moments that may become samples.

    `state` float64 [n, 8] is the proprioception at those moments; `commands` float64 [m, 8] are the targets that the
    robot was given for `command_ns` int64 [m], ascending. `views` yields, of the moments that it is asked for, in their
    order, those that were seen by all cameras. Without `subgoals` the action expert is told the goal, and there is
    nothing that a high level could learn.
    """

    source: str
    task: str
    goal: str
    times_ns: NDArray[np.int64]
    state: NDArray[np.float64]
    command_ns: NDArray[np.int64]
    commands: NDArray[np.float64]
    subgoals: Sequence[Spoken]
    views: Callable[[Sequence[int]], Iterator[tuple[int, Views]]]
    success: bool = True
    reason: str = ""


def samples(demonstration: Demonstration, number: int, settings: LowLevelConfig) -> EpisodeRecord:
    """The samples of an episode that gets the `number`, at the rate, horizon and image size of a policy's low level.

    A chunk is what the robot was told to do from then on, linear between its targets; beyond the last it rests there.
    Raises MemrtError for an episode of another kind of robot, or with too little in it.
    """
    _check(demonstration)
    dt_ns = round(NS_PER_S / settings.control_hz)
    steps = _on_the_grid(demonstration.times_ns, SAMPLE_EVERY * dt_ns)
    spoken = _Spoken(demonstration, HIGH_LEVEL_EVERY * dt_ns)
    record = EpisodeRecord(
        demonstration.task, None, number, demonstration.goal, success=demonstration.success, reason=demonstration.reason
    )
    ahead_ns = dt_ns * np.arange(1, settings.horizon + 1, dtype=np.int64)
    for index, views in demonstration.views(list(steps)):
        t_ns = int(demonstration.times_ns[index])
        if t_ns + dt_ns >= demonstration.command_ns[0] - dt_ns // 2:  # before, the robot had nothing to do yet
            simple, grounded = spoken.at(t_ns)
            images = {camera: resize_with_pad(views[camera], settings.image_size) for camera in CAMERAS}
            actions = sample(demonstration.command_ns, demonstration.commands, t_ns + ahead_ns)
            record.low_level.append(LowLevelSample(images, demonstration.state[index], actions, simple, grounded))
        if demonstration.subgoals:
            image = views["front"]
            if image.shape[:2] != (IMAGE_SIZE, IMAGE_SIZE):
                image = resize_with_pad(image, IMAGE_SIZE)
            step = SAMPLE_EVERY * steps[index]
            labels = {"task": record.task, "step": step, "goal": record.goal, **spoken.labels(t_ns), "scene": ""}
            record.high_level.append(HighLevelSample(image, labels))
    if not record.low_level:
        raise MemrtError(
            f"episode {demonstration.source}",
            expected=f"pictures of the cameras {', '.join(CAMERAS)}",
            found="none at a moment at which the robot's state is known",
            fix="record both cameras, or name those of the dataset with --camera",
        )
    record.usable = record.success
    return record


def _check(demonstration: Demonstration) -> None:
    found = f"{len(demonstration.times_ns)} states and {len(demonstration.commands)} commands"
    sizes = {demonstration.state.shape[-1], demonstration.commands.shape[-1]}
    if not len(demonstration.times_ns) or not len(demonstration.commands):
        raise MemrtError(
            f"episode {demonstration.source}", expected="states and commands", found=found, fix="leave it out"
        )
    if sizes != {ACTION_DIM}:
        raise MemrtError(
            f"episode {demonstration.source}",
            expected="states and actions of seven joint positions [rad] and a gripper",
            found=f"{' and '.join(map(str, sorted(sizes)))} values",
            fix="name other columns with --state and --action; other robots are not trained on",
        )
    if not (np.isfinite(demonstration.state).all() and np.isfinite(demonstration.commands).all()):
        raise MemrtError(
            f"episode {demonstration.source}", expected="finite numbers", found="NaN or infinity", fix="leave it out"
        )


def _on_the_grid(times_ns: NDArray[np.int64], every_ns: int) -> dict[int, int]:
    """The moments nearest to multiples of `every_ns` since the first one, each with its multiple.

    Where none is nearer than a quarter of it, that multiple is left out: labels count calls by steps.
    """
    chosen: dict[int, int] = {}
    for multiple in range(round((times_ns[-1] - times_ns[0]) / every_ns) + 1):
        wanted_ns = times_ns[0] + multiple * every_ns
        index = int(np.abs(times_ns - wanted_ns).argmin())
        if abs(times_ns[index] - wanted_ns) <= every_ns // 4:
            chosen[index] = multiple
    return chosen


class _Spoken:
    """The subgoals as segments: those that differ in coordinates only are one."""

    def __init__(self, demonstration: Demonstration, call_ns: int) -> None:
        self._subgoals, self._goal, self._call_ns = demonstration.subgoals, demonstration.goal, call_ns
        self._starts = [subgoal.t_ns for subgoal in self._subgoals]
        self._segments: list[int] = []
        self._last: list[int] = []  # of each segment, the subgoal that was said last
        for index, subgoal in enumerate(self._subgoals):
            simple = without_coordinates(subgoal.text)
            if index and simple == without_coordinates(self._subgoals[index - 1].text):
                self._last[-1] = index
            else:
                self._last.append(index)
            self._segments.append(len(self._last) - 1)

    def at(self, t_ns: int) -> tuple[str, str]:
        """(simple, grounded); the goal while nothing is said."""
        index = self._index(t_ns)
        text = self._goal if index < 0 else self._subgoals[index].text
        return without_coordinates(text), text

    def labels(self, t_ns: int) -> dict[str, object]:
        """What a high-level sample says of the subgoals, as `sim/record.py` writes it.

        Before the first subgoal was said, that one is already what should be.
        """
        index, before = max(0, self._index(t_ns)), self._index(t_ns - self._call_ns)
        segment = self._segments[index]
        history = [self._subgoals[last].text for last in self._last[:segment]]
        text = self._subgoals[index].text
        return {
            "subgoal_simple": without_coordinates(text),
            "subgoal_grounded": text,
            "segment": segment,
            "previous_segment": self._segments[before] if before >= 0 else -1,
            "history_simple": [without_coordinates(text) for text in history],
            "history_grounded": history,
        }

    def _index(self, t_ns: int) -> int:
        return int(np.searchsorted(self._starts, t_ns, side="right")) - 1
