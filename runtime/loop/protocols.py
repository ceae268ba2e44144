"""What the loop asks of a policy and of a robot. Trained policies, oracles and tests all come in through here."""

# ruff: noqa: D102 - a protocol's class docstring speaks for its members

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from memrt.runtime.errors import MemrtError
from memrt.runtime.types import ActionChunk, Observation, PlayingChunk, Robot, SteppedRobot, Subgoal

NoiseArray = NDArray[np.float32]


class Outcome(Protocol):
    """How the task stands, where the robot can tell (the simulator can, a table in a laboratory cannot)."""

    @property
    def status(self) -> Literal["running", "success", "failure"]: ...

    @property
    def reason(self) -> str: ...


class TaskRobot(Robot, Protocol):
    """A robot that also knows how its task stands, why it is in FAULT, and what it did with the chunks it was sent.

    `refused_in_a_row` counts the newest chunks that the robot's own limits refused, `statistics` are plain values for
    people and for the record (control lateness, starved ticks, dropped messages, ...).
    """

    @property
    def outcome(self) -> Outcome: ...

    @property
    def fault_reason(self) -> str: ...

    @property
    def refused_in_a_row(self) -> int: ...

    @property
    def statistics(self) -> Mapping[str, Any]: ...


class SteppedTaskRobot(SteppedRobot, Protocol):
    """The lock-step simulator: its time stands still between calls."""

    @property
    def outcome(self) -> Outcome: ...


class HighLevelReply(Protocol):
    """What one high-level call gives. `held` says the reply named no subgoal, so the last one goes on."""

    @property
    def state(self) -> Any: ...

    @property
    def subgoal(self) -> str: ...

    @property
    def held(self) -> bool: ...


class HighLevel(Protocol):
    """Names the subgoal. `state` is what it remembers: a frozen value that only the high level interprets."""

    def initial(self) -> Any: ...

    def call(
        self, goal: str, observation: Observation, state: Any, *, cancelled: Callable[[], bool] | None = None
    ) -> HighLevelReply:
        """One question. `cancelled` is asked while the answer is written; when true, the call raises Cancelled.

        One that is not in this process raises Unanswered when no answer came in time. A call that was cancelled or not
        answered has changed nothing that `state` leads to.
        """
        ...


@runtime_checkable
class LooksBack(HighLevel, Protocol):
    """A high level that may look at frames over time, and wants to be called when it has looked before."""

    def next_call_ns(self, state: Any, t_ns: int) -> int:
        """The first time at or after `t_ns` at which its observation should have been taken."""
        ...

    def looks_at_ns(self, state: Any, t_ns: int) -> tuple[int, ...]:
        """The times whose frames a call with an observation of `t_ns` asks for, oldest first; none for most."""
        ...


@runtime_checkable
class ReadsAhead(LooksBack, Protocol):
    """A high level that can begin with a call before its newest frame is there."""

    def read_ahead(
        self,
        goal: str,
        observation: Observation,
        state: Any,
        moment_ns: int,
        *,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        """Compute what is known of the coming call with an observation of `moment_ns`. Ends as `call` does.

        Changes nothing that `state` leads to.
        """
        ...


class LateChunkError(MemrtError):
    """Raised by a low level that is not in this process: no chunk came in time. The loop counts it as a late one."""


class LowLevelReply(Protocol):
    """What one low-level call gives: a chunk timed from its observation."""

    @property
    def chunk(self) -> ActionChunk: ...


class LowLevel(Protocol):
    """Turns an observation and a subgoal into an action chunk. The same arguments give the same chunk.

    `playing` is what the robot follows meanwhile, for policies whose chunks continue it (real-time chunking); None at
    the start, and always where the policy's settings ask for no chunking. Others ignore it.
    """

    def noise(self, seed: int, call_index: int) -> NoiseArray:
        """The starting noise of one call, float32 [horizon, action dimension]; a pure function of its arguments."""
        ...

    def act(
        self,
        observation: Observation,
        subgoal: Subgoal,
        goal: str,
        noise: NoiseArray,
        *,
        playing: PlayingChunk | None = None,
    ) -> LowLevelReply: ...
