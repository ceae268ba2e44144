"""The high-level thread's work: ask what to do next, as often as the policy says or as fast as it answers."""

from __future__ import annotations

from memrt.runtime.clock import NS_PER_S, Clock
from memrt.runtime.loop.gates import camera_state, oldest_frame_ns
from memrt.runtime.loop.observer import HighLevelCall, LoopObserver, NoObserver
from memrt.runtime.loop.protocols import HighLevel, TaskRobot
from memrt.runtime.loop.scheduler import POLL_NS
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.loop.shared import Shared
from memrt.runtime.loop.stages import trace_call
from memrt.runtime.loop.worker import IDLE_NS
from memrt.runtime.trace import Trace
from memrt.runtime.types import Observation


class HighLevelWorker:
    """Asks the high level every `every_steps` control steps, or as fast as it answers where that is slower.

    Without a high level the goal is the subgoal, and it never grows old.
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
        self._robot, self._high_level, self._settings = robot, high_level, settings
        self._shared, self._clock, self._trace = shared, clock, trace
        self._observer = observer or NoObserver()
        self._calls = 0
        self._due_ns = 0
        self._start_ns = clock.now_ns()

    def step(self) -> int:
        """Call when due, with a fresh image of every camera."""
        shared, settings = self._shared, self._settings
        now_ns = self._clock.now_ns()
        with shared.lock:
            following, state = shared.following, shared.memory
        if not following:
            return now_ns + IDLE_NS
        if now_ns < self._due_ns:
            return self._due_ns
        observation = self._robot.observe()
        if self._high_level is None:
            self._answer(shared.record.goal, observation)
            self._due_ns = now_ns + settings.every_steps * settings.paced_dt_ns
            return self._due_ns
        oldest_ns = oldest_frame_ns(observation, settings.cameras)
        if oldest_ns is None or camera_state(now_ns, oldest_ns, settings) != "fresh":
            return now_ns + POLL_NS
        self._due_ns = now_ns + settings.every_steps * settings.paced_dt_ns
        reply = self._high_level.call(shared.record.goal, observation, state)
        end_ns = self._clock.now_ns()
        with shared.lock:
            shared.memory = reply.state
            shared.record.latency("high level", end_ns - now_ns)
            shared.record.stages("high level", reply)
            shared.record.counts["held replies"] += reply.held
        trace_call(self._trace, "high level", now_ns, end_ns, reply, subgoal=reply.subgoal, held=reply.held)
        self._observer.high_level(
            HighLevelCall(
                index=self._calls,
                goal=shared.record.goal,
                observation=observation,
                before=state,
                reply=reply,
                t_ns=now_ns,
                duration_ns=end_ns - now_ns,
            )
        )
        self._calls += 1
        self._answer(reply.subgoal, observation)
        return max(self._due_ns, end_ns)

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
