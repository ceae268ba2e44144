"""A run that `memrt run --record` wrote, of a policy that did well or of the scripted expert, as a demonstration."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.errors import MemrtError
from memrt.runtime.recording.messages import FRAMES, Chunk, Command, Log, RawImage, RobotState
from memrt.runtime.recording.reader import Recording, Summary, is_frame
from memrt.runtime.types import Frame
from memrt.sim.dataset import CAMERAS
from memrt.train.episodes.demonstration import ACTION_DIM, Demonstration, Spoken, Views

STALE_NS = 100 * NS_PER_MS  # a picture that is older shows another moment (`LoopSettings.camera_stale_ns`)


def recorded_run(path: Path, task: str | None = None) -> Demonstration:
    """Read a recording; `task` by default its own. Raises MemrtError for what is none, or moved another way."""
    recording, times, states, told = Recording(path), list[int](), list[list[float]](), _Told()
    summary = Summary(recording.run)
    for recorded in recording.messages(lambda topic: topic in ("/state", "/commands", "/events"), summary):
        message = recorded.message
        if isinstance(message, RobotState):
            if None not in message.proprioception and (not times or message.t_obs_ns > times[-1]):
                times.append(message.t_obs_ns)
                states.append([value for value in message.proprioception if value is not None])
        elif isinstance(message, Command):
            told.command(message.chunk, path)
        elif isinstance(message, Log) and message.event == "subgoal":
            t_ns = message.timestamp.sec * NS_PER_S + message.timestamp.nsec
            told.subgoals.append(Spoken(t_ns, str(message.arguments.get("text", ""))))
    times_ns, end = np.array(times, np.int64), summary.end or {}
    command_ns, commands = told.commands()
    return Demonstration(
        source=str(path),
        task=task or recording.run.get("task") or path.stem,
        goal=recording.run.get("goal", ""),
        times_ns=times_ns,
        state=np.array(states, np.float64).reshape(len(states), -1),
        command_ns=command_ns,
        commands=commands,
        subgoals=sorted(told.subgoals, key=lambda subgoal: subgoal.t_ns),
        views=lambda wanted: _views(recording, times_ns, wanted),
        success=end.get("outcome") == "success",
        reason=end.get("reason", summary.cut_off),
    )


class _Told:
    """What the robot was told: each chunk replaces the older ones from its first action on."""

    def __init__(self) -> None:
        self.subgoals: list[Spoken] = []
        self._times: list[int] = []
        self._targets: list[list[float]] = []

    def command(self, chunk: Chunk, path: Path) -> None:
        """Take in a chunk that was sent."""
        if chunk.space != "joint_position":
            raise MemrtError(
                f"recording {path}",
                expected="commands of joint positions",
                found=f"commands of `{chunk.space}`",
                fix="leave it out: the low level is trained on joint positions",
            )
        while self._times and self._times[-1] >= chunk.t0_ns:
            self._times.pop()
            self._targets.pop()
        for index, row in enumerate(chunk.actions):
            self._times.append(chunk.t0_ns + index * chunk.dt_ns)
            self._targets.append([np.nan if value is None else value for value in row])

    def commands(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Times [m] and targets [m, 8]."""
        targets = np.array(self._targets, np.float64).reshape(-1, ACTION_DIM)
        return np.array(self._times, np.int64), targets


def _views(recording: Recording, times_ns: NDArray[np.int64], wanted: Sequence[int]) -> Iterator[tuple[int, Views]]:
    """At every moment the newest frame of each camera, where none is stale; one pass over the file."""
    waiting = iter(wanted)
    index = next(waiting, None)
    newest: dict[str, Frame] = {}
    frames = recording.messages(lambda topic: is_frame(topic) and topic.removeprefix(FRAMES) in CAMERAS)
    # After the last frame every moment that is left is looked at once more.
    for recorded in itertools.chain(frames, (None,)):
        frame = None
        if recorded is not None:
            assert isinstance(recorded.message, RawImage)
            frame = recorded.message.frame()
        while index is not None and (frame is None or frame.t_ns > times_ns[index]):
            t_ns = int(times_ns[index])
            if len(newest) == len(CAMERAS) and all(t_ns - seen.t_ns <= STALE_NS for seen in newest.values()):
                yield index, {camera: seen.image for camera, seen in newest.items()}
            index = next(waiting, None)
        # A frame that a policy looked back at is recorded late; it is no news.
        if frame is not None and (frame.camera not in newest or frame.t_ns > newest[frame.camera].t_ns):
            newest[frame.camera] = frame
