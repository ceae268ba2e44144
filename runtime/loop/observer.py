"""What a loop tells whoever records it: every decision with all that went into it, and everything that happened.

Threading and ownership: the methods are called on the loop's own threads, some with its lock held, so an observer only
takes references and returns: it neither waits nor raises. What it is given is never written again: observations and
chunks own their arrays, memory is a frozen value.

Times are those of the robot's clock: monotonic in real time, simulated in lock-step.
"""

# ruff: noqa: D102 - a protocol's class docstring speaks for its members

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from memrt.runtime.loop.protocols import HighLevelReply, LowLevelReply
from memrt.runtime.types import ActionChunk, Observation, PlayingChunk, RobotMode, Subgoal


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HighLevelCall:
    """One question to the high level. `before` is the memory it was asked with, the memory after is the reply's.

    `index` counts the calls of a run from 0. `reply` is None for a call that was cancelled, the `questions`-th time
    that it asked whether it was, and where the high level only read ahead for call `index`, which will be asked with an
    observation of `ahead_of_ns`: neither leaves a trace but frame features and K/V rows. `missed` says why a VLM that
    is served elsewhere did not answer; with a reply somebody on board did, without one nobody.
    """

    index: int
    goal: str
    observation: Observation
    before: Any
    reply: HighLevelReply | None
    questions: int = 0
    cancelled: bool = False
    missed: str = ""
    ahead_of_ns: int | None = None
    t_ns: int
    duration_ns: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LowLevelCall:
    """One action chunk computed. `seed` and `index`, which counts the calls of a run from 0, name its noise.

    `playing` is the chunk that it continues (real-time chunking), None where it continues none.
    """

    index: int
    seed: int
    goal: str
    observation: Observation
    subgoal: Subgoal
    playing: PlayingChunk | None
    reply: LowLevelReply
    t_ns: int
    duration_ns: int


class LoopObserver(Protocol):
    """One method per thing that happens.

    `watched`: the observation to call the high level with, the same but for its history, which an observer may look
    through, to learn which past frames the policy asks for.
    `sent`: of low-level call `call`, `chunk` went to the robot: its actions are the last ones of that call's chunk, in
    time and paced. A chunk that did not go is an event of track "low level" that says why, with the argument `call`.
    `state`: where the robot is, at most once per look of the supervisor (50 Hz) or per control step.
    """

    def watched(self, observation: Observation) -> Observation: ...

    def high_level(self, call: HighLevelCall) -> None: ...

    def low_level(self, call: LowLevelCall) -> None: ...

    def sent(self, call: int, chunk: ActionChunk, t_ns: int) -> None: ...

    def event(self, name: str, track: str, t_ns: int, **arguments: object) -> None: ...

    def state(self, mode: RobotMode, observation: Observation, t_ns: int) -> None: ...


class NoObserver:
    """Takes everything and does nothing with it."""

    def watched(self, observation: Observation) -> Observation:
        """The observation itself."""
        return observation

    def high_level(self, call: HighLevelCall) -> None:
        """Nobody records it."""

    def low_level(self, call: LowLevelCall) -> None:
        """Nobody records it."""

    def sent(self, call: int, chunk: ActionChunk, t_ns: int) -> None:
        """Nobody records it."""

    def event(self, name: str, track: str, t_ns: int, **arguments: object) -> None:
        """Nobody records it."""

    def state(self, mode: RobotMode, observation: Observation, t_ns: int) -> None:
        """Nobody records it."""
