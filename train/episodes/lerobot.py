"""The episodes of a LeRobot dataset as demonstrations: teleoperated ones, above all."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memrt.runtime.clock import NS_PER_S
from memrt.runtime.errors import MemrtError
from memrt.sim.dataset import CAMERAS
from memrt.train.episodes.demonstration import Demonstration, Spoken, Views
from memrt.train.episodes.lerobot_layout import Layout
from memrt.train.episodes.movie import frames

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Columns:
    """Which of a dataset's columns are what. `gripper`: whether its last value grows as the hand opens or closes."""

    state: str = "observation.state"
    action: str = "action"
    cameras: Mapping[str, str] = field(default_factory=lambda: {name: f"observation.images.{name}" for name in CAMERAS})
    gripper: Literal["opening", "closing"] = "opening"


def lerobot_episodes(root: Path, columns: Columns, task: str | None = None) -> Iterator[Demonstration]:
    """Read a dataset episode by episode; `task` by default the folder's name. Raises MemrtError for what is none."""
    layout = Layout(root)
    wanted = [columns.state, columns.action, *(columns.cameras.get(name, "") for name in CAMERAS)]
    missing = [name or "a camera" for name in wanted if name not in layout.features]
    if missing:
        raise MemrtError(
            f"dataset {root}",
            expected=f"the columns {', '.join(filter(None, wanted))}",
            found=f"no {', '.join(missing)} among {', '.join(layout.features)}",
            fix="name the dataset's own columns with --state, --action and --camera front=...",
        )
    for episode in layout.episodes:
        yield _demonstration(layout, episode, columns, task or root.name)


def _demonstration(layout: Layout, episode: Mapping[str, Any], columns: Columns, task: str) -> Demonstration:
    names = [columns.state, columns.action, "timestamp", "task_index"]
    told = layout.frames(episode, [*names, "subtask_index"] if layout.subtasks else names)
    times_ns = np.round(np.array(told["timestamp"], np.float64) * NS_PER_S).astype(np.int64)
    said = [layout.subtasks.get(int(index), "") for index in told.get("subtask_index", [])]
    changes = [
        Spoken(int(times_ns[i]), text) for i, text in enumerate(said) if text and (i == 0 or text != said[i - 1])
    ]
    state, asked = _opening(told[columns.state], columns.gripper), _opening(told[columns.action], columns.gripper)
    # An action is what was asked for at its frame, to be reached by the next one; at the first one the arm is at rest.
    start = state[:1].copy()
    start[:, -1:] = asked[:1, -1:]
    return Demonstration(
        source=f"{layout.root}, episode {episode['episode_index']}",
        task=task,
        goal=layout.tasks.get(int(told["task_index"][0]), "") if told["task_index"] else "",
        times_ns=times_ns,
        state=state,
        command_ns=np.concatenate([times_ns[:1], times_ns + round(NS_PER_S / layout.fps)]),
        commands=np.concatenate([start, asked]) if start.shape[1:] == asked.shape[1:] else asked,
        subgoals=changes,
        views=lambda wanted: _views(layout, episode, columns, wanted),
    )


def _opening(rows: Sequence[Any], gripper: str) -> NDArray[np.float64]:
    values = np.array(rows, np.float64)
    if values.ndim == 2 and gripper == "closing":
        values[:, -1] = 1.0 - values[:, -1]
    return values.reshape(len(rows), -1)


def _views(
    layout: Layout, episode: Mapping[str, Any], columns: Columns, wanted: Sequence[int]
) -> Iterator[tuple[int, Views]]:
    pictures = [_pictures(layout, episode, columns.cameras[camera], wanted) for camera in CAMERAS]
    for index, *images in zip(wanted, *pictures, strict=True):
        yield index, dict(zip(CAMERAS, images, strict=True))


def _pictures(layout: Layout, episode: Mapping[str, Any], feature: str, wanted: Sequence[int]) -> Iterator[Pixels]:
    if layout.is_video(feature):
        place = layout.video(episode, feature)
        yield from frames(place.path, layout.fps, place.from_s, wanted)
        return
    stored = layout.frames(episode, [feature])[feature]
    for index in wanted:
        with Image.open(io.BytesIO(stored[index]["bytes"])) as image:
            yield np.asarray(image.convert("RGB"))
