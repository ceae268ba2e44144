"""Policies and an observer for the fault tests: the faults are scripted, everything else is what a policy would do."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from memrt.runtime.clock import NS_PER_S
from memrt.runtime.loop.observer import HighLevelCall, LowLevelCall, NoObserver
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.policy.cancellation import Cancelled
from memrt.runtime.types import ActionChunk, Observation, PlayingChunk, RobotMode

DT_NS, HORIZON, EXECUTE = 50_000_000, 16, 8
SWING_RAD, SWING_HZ = 0.5, 0.15  # of the first joint, about where it was at the start: 0.47 rad/s at most
# Deadlines that a busy computer does not miss, where a test is about something else.
PATIENT = {
    "camera_stale_ns": 10 * NS_PER_S,
    "camera_lost_ns": 20 * NS_PER_S,
    "subgoal_time_to_live_ns": 60 * NS_PER_S,
    "late_before_hold": 100,
}
PROMISED = {field.name: field.default for field in dataclasses.fields(LoopSettings) if field.name in PATIENT}


def promised(*names: str) -> dict[str, int]:
    """Those of the deadlines that a test is about, as users have them."""
    return {name: PROMISED[name] for name in names}


@dataclass(frozen=True)
class Reply:
    state: int
    subgoal: str
    held: bool = False


@dataclass(frozen=True)
class ChunkReply:
    chunk: ActionChunk


class Names:
    """The high level: names one subgoal. `hang` keeps it from answering; a deaf one does not even hear a cancel."""

    def __init__(self, deaf: bool = False) -> None:
        self.deaf = deaf
        self.hanging = threading.Event()
        self.let_go = threading.Event()

    def hang(self) -> None:
        self.hanging.set()

    def initial(self) -> int:
        return 0

    def call(self, goal: str, observation: Observation, state: int, *, cancelled) -> Reply:
        while self.hanging.is_set() and not self.let_go.wait(0.01):
            if cancelled() and not self.deaf:
                raise Cancelled
        return Reply(state + 1, "swing")


class Swings:
    """The low level: the first joint swings to and fro, on one smooth curve over all chunks.

    `spoil` changes a chunk before it leaves; `delay` is called in every call, with what it is about, and may wait.
    """

    def __init__(self, horizon: int = HORIZON) -> None:
        self._horizon = horizon
        self.spoil: Callable[[ActionChunk], ActionChunk] = lambda chunk: chunk
        self.delay: Callable[[Observation, PlayingChunk | None], object] = lambda observation, playing: None
        self._start: tuple[int, np.ndarray] | None = None

    def noise(self, seed: int, call_index: int) -> np.ndarray:
        return np.zeros((self._horizon, 8), np.float32)

    def act(self, observation: Observation, subgoal, goal: str, noise, *, playing=None) -> ChunkReply:
        self.delay(observation, playing)
        if self._start is None:
            self._start = observation.t_ns, observation.proprioception
        began_ns, start = self._start
        t_ns = observation.t_ns + DT_NS * np.arange(1, self._horizon + 1)
        actions = np.tile(start, (self._horizon, 1))
        actions[:, 0] += SWING_RAD * np.sin(2 * np.pi * SWING_HZ * (t_ns - began_ns) / 1e9)
        return ChunkReply(self.spoil(ActionChunk(actions, int(t_ns[0]), DT_NS, subgoal.revision)))


@dataclass
class Notes(NoObserver):
    """Everything the loop tells, in order."""

    ticks: list[tuple[int, RobotMode, Observation]] = field(default_factory=list)
    high: list[HighLevelCall] = field(default_factory=list)
    low: list[LowLevelCall] = field(default_factory=list)
    chunks: list[tuple[int, ActionChunk]] = field(default_factory=list)
    events: list[tuple[int, str, dict]] = field(default_factory=list)

    def state(self, mode, observation, t_ns):
        self.ticks.append((t_ns, mode, observation))

    def high_level(self, call):
        self.high.append(call)

    def low_level(self, call):
        self.low.append(call)

    def sent(self, call, chunk, t_ns):
        self.chunks.append((t_ns, chunk))

    def event(self, name, track, t_ns, **arguments):
        self.events.append((t_ns, name, arguments))

    def when(self, event: str) -> list[int]:
        """The times of all events of this name."""
        return [t_ns for t_ns, name, _ in self.events if name == event]
