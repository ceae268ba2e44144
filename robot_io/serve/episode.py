"""The loop turned inside out: the client owns the robot and its time, each request is the next moment of an episode.

An episode counts control steps and calls the policies when `run_lockstep` would: the high level every `every_steps`,
the low level for a new chunk. So a client that executes what it is told gets, step for step, what lock-step gives.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.gates import refuse_chunk
from memrt.runtime.loop.protocols import HighLevel, LooksBack, LowLevel
from memrt.runtime.loop.scheduler import SubgoalBoard
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.loop.step_frames import StepFrames
from memrt.runtime.types import FloatArray, Observation, Subgoal


@dataclass(slots=True)
class PolicyHost:
    """The policies that all episodes share, one call at a time: they belong to the thread that calls `Episode`.

    What the high level has computed ahead (K/V of the last prompt) is forgotten whenever another episode takes over, so
    that no episode depends on what others did in between.
    """

    high_level: HighLevel | None
    low_level: LowLevel
    settings: LoopSettings
    _owner: object = field(default=None, init=False)

    def initial(self, episode: object) -> Any:
        """The memory at the start of `episode`."""
        self._owner = episode
        return None if self.high_level is None else self.high_level.initial()

    def take_over(self, episode: object) -> None:
        """Before each call of a policy for `episode`."""
        if self._owner is not episode:
            self.initial(episode)


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A chunk float64 [H, 8] (absolute joint targets [rad], gripper opening 0…1) and the subgoal it follows.

    Times are durations; `high_level_ns` is 0 when the subgoal went on.
    """

    actions: FloatArray
    subgoal: Subgoal
    high_level_ns: int
    low_level_ns: int


class Episode:
    """One client's episode: memory, subgoal, control step. `restart` begins the next one."""

    def __init__(self, host: PolicyHost, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._host, self._clock = host, clock
        self.restart()

    def restart(self) -> None:
        """Forget everything: the memory is as at the start, and so is the noise."""
        high_level, settings = self._host.high_level, self._host.settings
        self.step = 0
        self.goal = ""
        self._memory: Any = None
        self._begun = False
        self._past: StepFrames | None = None
        if isinstance(high_level, LooksBack):
            self._past = StepFrames(high_level, settings.dt_ns, settings.every_steps)
        self._board = SubgoalBoard()
        self._calls = 0
        self._next_call = 0  # of the high level, control step

    @property
    def now_ns(self) -> int:
        """The episode's time: control steps that have passed, times their duration."""
        return self.step * self._host.settings.dt_ns

    @property
    def looks(self) -> bool:
        """Whether `look` would ask the high level now, or keep what the cameras see for a later call."""
        if self._host.high_level is None or not self._begun or self.step >= self._next_call:
            return True
        return self._past is not None and self._past.wants(self._memory, self.now_ns, self._call_ns)

    def infer(self, observation: Observation, goal: str, subgoal: str = "") -> Answer:
        """`look`, then `act`."""
        began_ns = self._clock()
        asked = self.look(observation, goal, subgoal)
        looked_ns = self._clock()
        actions, current = self.act(observation)
        return Answer(actions, current, looked_ns - began_ns if asked else 0, self._clock() - looked_ns)

    def look(self, observation: Observation, goal: str, subgoal: str = "") -> bool:
        """Ask the high level if it is due; whether it was. A `subgoal` of the client's replaces its answer.

        Under another goal it is due at once; what becomes of its memory then is the policy's `on_new_goal`.
        """
        if goal != self.goal:
            self.goal, self._next_call = goal, self.step
        high_level = self._host.high_level
        if subgoal or high_level is None:
            self._board.answer(subgoal or goal, observation.t_ns, observation.t_ns)
            return False
        self.remember(observation)
        if self.step < self._next_call:
            return False
        self._host.take_over(self)
        reply = high_level.call(goal, replace(observation, history=self._past), self._memory)
        self._memory = reply.state
        self._next_call = self.step + self._host.settings.every_steps
        if self._past is not None:
            wait_ns = self._past.next_call_ns(self._memory, self.now_ns) - self.now_ns
            self._next_call = self.step + wait_ns // self._host.settings.dt_ns
        self._board.answer(reply.subgoal, observation.t_ns, observation.t_ns)
        return True

    def remember(self, observation: Observation) -> None:
        """Keep what the cameras see for calls that look at frames over time; bounded by how far those look back."""
        if not self._begun:
            self._memory, self._begun = self._host.initial(self), True
        if self._past is not None:
            self._past.add(observation, self._memory, max(self._call_ns, observation.t_ns))

    @property
    def _call_ns(self) -> int:
        return max(self.step, self._next_call) * self._host.settings.dt_ns

    def act(self, observation: Observation) -> tuple[FloatArray, Subgoal]:
        """A chunk float64 [H, 8] from `observation`, and the subgoal it follows.

        Raises MemrtError when there is no subgoal to follow, and for a chunk that no robot may follow.
        """
        host, subgoal = self._host, self._board.subgoal
        if subgoal is None:
            raise MemrtError(
                "request", expected="a subgoal", found="a high level that named none", fix="send another observation"
            )
        noise = host.low_level.noise(host.settings.seed, self._calls)
        chunk = host.low_level.act(observation, subgoal, self.goal, noise).chunk
        self._calls += 1
        if refusal := refuse_chunk(chunk, host.settings.horizon):
            raise MemrtError("the policy's chunk", expected="finite actions", found=refusal, fix="check the bundle")
        return chunk.actions, subgoal
