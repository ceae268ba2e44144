"""The high-level thread's work: ask what to do next, as often as the policy says or as fast as it answers."""

from __future__ import annotations

from typing import Any

from memrt.runtime.clock import NS_PER_S, Clock
from memrt.runtime.loop.gates import camera_state
from memrt.runtime.loop.high_level_calls import HighLevelCalls
from memrt.runtime.loop.observer import LoopObserver, NoObserver
from memrt.runtime.loop.protocols import HighLevel, LooksBack, ReadsAhead, TaskRobot
from memrt.runtime.loop.scheduler import POLL_NS
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.loop.shared import Shared
from memrt.runtime.loop.worker import IDLE_NS
from memrt.runtime.trace import Trace
from memrt.runtime.types import Observation


class HighLevelWorker:
    """Asks the high level every `every_steps` control steps, or as fast as it answers where that is slower.

    A high level that looks at frames over time is asked on its sampling grid: with the first observation at or after a
    moment of it. Until then it reads the call ahead, frame by frame as they come. A new goal, a hold, a resume and the
    end cancel the call that is running, and after a new goal or a resume the next one is due at once. Without a high
    level the goal is the subgoal, and it never grows old.
    """

    def __init__(
        self,
        robot: TaskRobot,
        high_level: HighLevel | None,
        settings: LoopSettings,
        *,
        shared: Shared,
        clock: Clock,
        trace: Trace,
        observer: LoopObserver | None = None,
    ) -> None:
        self._robot, self._settings = robot, settings
        self._shared, self._clock, self._trace = shared, clock, trace
        self._observer = observer or NoObserver()
        self._looks_back = high_level if isinstance(high_level, LooksBack) else None
        self._calls: HighLevelCalls | None = None
        if high_level is not None:
            self._calls = HighLevelCalls(
                high_level, shared.record, clock=clock, trace=trace, observer=self._observer, lock=shared.lock
            )
        self._asked_for = shared.wanted  # what the last call was, or the first will be, about
        self._due_ns = 0
        self._read_ahead_of = (-1, 0)  # the moment of the call that was read ahead last, and how many frames of it
        self._start_ns = clock.now_ns()

    def step(self) -> int:
        """Call when due, with a fresh image of every camera."""
        shared, settings = self._shared, self._settings
        now_ns = self._clock.now_ns()
        with shared.lock:
            following, state, goal, wanted = shared.following, shared.memory, shared.record.goal, shared.wanted
        if not following:
            return now_ns + IDLE_NS
        if wanted != self._asked_for:
            self._asked_for, self._due_ns = wanted, now_ns
        if now_ns < self._due_ns:
            return self._read_ahead(now_ns, goal, state)
        observation = self._robot.observe()
        if self._calls is None:
            self._due_ns = now_ns + settings.every_steps * settings.paced_dt_ns
            self._answer(goal, observation)
            return self._due_ns
        oldest = shared.cameras.oldest(observation)
        if oldest is None or camera_state(now_ns, oldest.t_ns, settings) != "fresh":
            self._due_ns = now_ns
            return now_ns + POLL_NS
        moment_ns = now_ns
        if self._looks_back is not None and self._looks_back.looks_at_ns(state, now_ns):
            moment_ns = self._looks_back.next_call_ns(state, self._due_ns)
            if observation.t_ns < moment_ns:
                return max(moment_ns, now_ns + POLL_NS)
        state = shared.memory_for_a_call()
        reply = self._calls.ask(goal, observation, state, t_ns=now_ns, cancelled=lambda: shared.superseded(wanted))
        end_ns = self._clock.now_ns()
        self._due_ns = max(moment_ns + settings.every_steps * settings.paced_dt_ns, end_ns)
        with shared.lock:
            shared.record.counts["calls past their deadline"] += end_ns - now_ns > settings.subgoal_time_to_live_ns
            if reply is not None:
                shared.memory = state = reply.state
            superseded = shared.superseded(wanted)
        if reply is not None and not superseded:  # else it answers a question that is no longer asked
            self._answer(reply.subgoal, observation)
        return end_ns if superseded else self._read_ahead(end_ns, goal, state)

    def _read_ahead(self, now_ns: int, goal: str, state: Any) -> int:
        """Let the next call be read ahead with each frame of it that comes; returns when to look again."""
        shared, high_level, wanted = self._shared, self._looks_back, self._asked_for
        if self._calls is None or not isinstance(high_level, ReadsAhead):
            return self._due_ns
        moment_ns = high_level.next_call_ns(state, self._due_ns)
        times_ns = high_level.looks_at_ns(state, moment_ns)[:-1]
        known = sum(t_ns <= now_ns for t_ns in times_ns)
        if known and (moment_ns, known) != self._read_ahead_of:
            observation = self._robot.observe()
            if observation.t_ns < times_ns[known - 1]:
                return min(now_ns + POLL_NS, self._due_ns)
            self._read_ahead_of = (moment_ns, known)
            self._calls.read_ahead(
                high_level,
                goal,
                observation,
                state,
                moment_ns,
                t_ns=now_ns,
                cancelled=lambda: shared.superseded(wanted) or self._clock.now_ns() >= moment_ns,
            )
        return min([*times_ns[known:], self._due_ns])

    def _answer(self, text: str, observation: Observation) -> None:
        shared, now_ns = self._shared, self._clock.now_ns()
        with shared.lock:
            changed = shared.board.answer(text, observation.t_ns, now_ns)
            subgoal = shared.board.subgoal
            if not changed or subgoal is None:
                return
            shared.record.new_subgoal(subgoal, (now_ns - self._start_ns) / NS_PER_S)
        self._trace.instant("subgoal", "high level", now_ns, text=subgoal.text, revision=subgoal.revision)
        self._observer.event("subgoal", "high level", now_ns, text=subgoal.text, revision=subgoal.revision)
        shared.wake_workers()
