"""The loop in lock-step: the robot's time stands still while the policies think. Deterministic for a seed.

This is the reference's synchronous loop (SPECS 1.1): the high level is called inline every `every_steps` control
steps, or as many more as it wants for its sampling grid, the low level every `execute` steps (or at every one, `calls:
every_tick`), both with the observation of that step. Cameras are drawn at those steps, and at the steps that a later
high-level call looks back at. No action is past when its chunk arrives: real-time chunking has a delay of 0 here, so
`guided` only fades from the old chunk to the new one, and `prefix` has nothing to begin with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from memrt.runtime.clock import NS_PER_S, Clock, MonotonicClock
from memrt.runtime.loop.following import Followed
from memrt.runtime.loop.gates import refuse_chunk
from memrt.runtime.loop.high_level_calls import HighLevelCalls
from memrt.runtime.loop.observer import LoopObserver, LowLevelCall, NoObserver
from memrt.runtime.loop.protocols import HighLevel, LooksBack, LowLevel, SteppedTaskRobot
from memrt.runtime.loop.record import RunRecord
from memrt.runtime.loop.scheduler import InARow, SubgoalBoard, keep_chunk, pace
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.loop.stages import trace_call
from memrt.runtime.loop.step_frames import StepFrames
from memrt.runtime.trace import Trace
from memrt.runtime.types import Observation, RobotMode, Subgoal


@dataclass(frozen=True, slots=True)
class StepView:
    """What `on_step` sees after each control step. `observation` is the one that the running chunk came from."""

    step: int
    subgoal: Subgoal
    state: Any
    observation: Observation
    record: RunRecord


def run_lockstep(
    robot: SteppedTaskRobot,
    high_level: HighLevel | None,
    low_level: LowLevel,
    goal: str,
    settings: LoopSettings,
    *,
    on_step: Callable[[StepView], None] | None = None,
    clock: Clock | None = None,
    trace: Trace | None = None,
    observer: LoopObserver | None = None,
) -> RunRecord:
    """Arm the robot and run until its outcome is decided, a fault ends the run, or `settings.cap_steps` have passed.

    Without a high level the goal itself is the subgoal. The clock only measures how long the policies take; nothing
    depends on it. Raises whatever a policy raises: in lock-step an error is an error, not a fault to survive. Only a
    high level that is served elsewhere may fail to answer: the last subgoal goes on, for its time to live.
    """
    run = _LockstepRun(robot, high_level, low_level, RunRecord("lockstep", goal, settings.seed), settings)
    run.clock, run.trace, run.observer = clock or MonotonicClock(), trace, observer or NoObserver()
    if high_level is not None:
        run.asking = HighLevelCalls(high_level, run.record, clock=run.clock, trace=trace, observer=run.observer)
    robot.arm()
    while run.record.status == "running":
        run.step()
        if on_step is not None and run.subgoal is not None and run.observation is not None:
            on_step(StepView(run.record.steps, run.subgoal, run.state, run.observation, run.record))
    run.observer.event("end", "supervisor", run.now_ns, status=run.record.status, reason=run.record.reason)
    return run.record


class _LockstepRun:
    clock: Clock
    trace: Trace | None
    observer: LoopObserver
    asking: HighLevelCalls | None = None
    _t_ns: int  # of the present control step, once the first one was observed

    def __init__(
        self,
        robot: SteppedTaskRobot,
        high_level: HighLevel | None,
        low_level: LowLevel,
        record: RunRecord,
        settings: LoopSettings,
    ) -> None:
        self._robot, self._low_level = robot, low_level
        self._settings = settings
        self._board = SubgoalBoard()
        self._rejected = InARow(settings.rejected_before_hold)
        self._calls = 0
        self._followed = Followed(settings)
        self._revision = 0  # of the newest chunk's subgoal
        self._next_high = 0  # control step
        self._past: StepFrames | None = None
        if isinstance(high_level, LooksBack):
            self._past = StepFrames(high_level, settings.dt_ns, settings.every_steps)
        self.state: Any = high_level.initial() if high_level else None
        self.observation: Observation | None = None
        self.record = record

    @property
    def subgoal(self) -> Subgoal | None:
        return self._board.subgoal

    @property
    def now_ns(self) -> int:
        """The robot's time, as far as it was observed."""
        return self.observation.t_ns if self.observation is not None else 0

    @property
    def _outdated(self) -> bool:
        """Whether the chunk under way follows an older subgoal and is to be dropped for it."""
        revision = self.subgoal.revision if self.subgoal is not None else 0
        return self._revision > 0 and not keep_chunk(self._revision, revision, self._settings.on_new_subgoal)

    def step(self) -> None:
        """One control step, with the calls that are due before it."""
        step, settings, record = self.record.steps, self._settings, self.record
        high_due = step == self._next_high
        low_due = step % settings.steps_between_calls == 0
        if high_due or low_due:
            self.observation = replace(self._robot.observe(), history=self._past)
            self._t_ns = self.observation.t_ns
            self.observer.state(RobotMode.RUNNING, self.observation, self.now_ns)
            if step == 0:
                self._board.start(self._t_ns)
        self._keep_frames()
        if high_due:
            self._call_high_level()
            self._next_high += settings.every_steps
            if self._past is not None:
                wait_ns = self._past.next_call_ns(self.state, self._t_ns) - self._t_ns
                self._next_high = step + wait_ns // settings.dt_ns
        if record.status == "running" and (low_due or self._outdated):
            self._call_low_level()
        if record.status != "running":
            self._robot.stop()
            return
        self._robot.advance(1)
        self._t_ns += settings.dt_ns
        record.steps += 1
        record.duration_ns += settings.dt_ns
        outcome = self._robot.outcome
        if outcome.status != "running":
            record.status, record.reason, record.outcome_by = outcome.status, outcome.reason, "robot"
        elif record.steps >= settings.cap_steps:
            record.status, record.reason = "time_over", f"not done after {settings.cap_steps} control steps"

    def _keep_frames(self) -> None:
        """Keep this step's frames where a high-level call looks at them, now or later."""
        if self._past is None:
            return
        call_ns = self._t_ns + (self._next_high - self.record.steps) * self._settings.dt_ns
        if self._past.wants(self.state, self._t_ns, call_ns):
            fresh = self.observation is not None and self.observation.t_ns == self._t_ns
            self._past.add(self._observed() if fresh else self._robot.observe(), self.state, call_ns)

    def _call_high_level(self) -> None:
        observation, record = self._observed(), self.record
        text = record.goal
        if self.asking is not None:
            reply = self.asking.ask(record.goal, observation, self.state, t_ns=observation.t_ns, step=record.steps)
            if reply is None:  # nobody cancels a call in lock-step: nobody answered
                self._go_unanswered()
                return
            self.state, text = reply.state, reply.subgoal
        if self._board.answer(text, observation.t_ns, observation.t_ns) and self.subgoal is not None:
            record.new_subgoal(self.subgoal, record.duration_ns / NS_PER_S)
            self.observer.event("subgoal", "high level", self.now_ns, text=text, revision=self.subgoal.revision)

    def _go_unanswered(self) -> None:
        record, time_to_live_ns = self.record, self._settings.subgoal_time_to_live_ns
        if self._board.expired(self._t_ns, time_to_live_ns):
            record.status = "held"
            record.reason = f"the high level has not answered for {time_to_live_ns / NS_PER_S:g} s: {record.missed}"

    def _call_low_level(self) -> None:
        observation, record, settings = self._observed(), self.record, self._settings
        if self.subgoal is None:  # the high level has named none yet: nothing to follow
            record.counts["calls without a subgoal"] += 1
            return
        noise = self._low_level.noise(settings.seed, self._calls)
        self._calls += 1
        playing = None
        if settings.chunking != "none":  # time waits for the chunk: a delay of 0
            playing = self._followed.playing(observation.t_ns, 0, outdated=self._outdated)
        start_ns = self.clock.now_ns()
        reply = self._low_level.act(observation, self.subgoal, self.record.goal, noise, playing=playing)
        end_ns = self.clock.now_ns()
        self.observer.low_level(
            LowLevelCall(
                index=self._calls - 1,
                seed=settings.seed,
                goal=self.record.goal,
                observation=observation,
                subgoal=self.subgoal,
                playing=playing,
                reply=reply,
                t_ns=observation.t_ns,
                duration_ns=end_ns - start_ns,
            )
        )
        record.latency("low level", end_ns - start_ns)
        record.stages("low level", reply)
        if self.trace is not None:
            revision = self.subgoal.revision
            trace_call(self.trace, "low level", start_ns, end_ns, reply, revision=revision, step=record.steps)
        chunk = pace(reply.chunk, observation.t_ns, settings)
        refusal = refuse_chunk(chunk, settings.horizon)
        if not refusal:
            try:
                self._robot.send(chunk)
            except ValueError as error:  # the seam's own refusal, e.g. joint limits
                refusal = str(error)
        if refusal:
            record.counts["rejected chunks"] += 1
            self.observer.event("rejected chunks", "low level", self.now_ns, call=self._calls - 1, reason=refusal)
            if self._rejected.happened():
                record.status, record.reason = "held", f"{settings.rejected_before_hold} chunks rejected: {refusal}"
            return
        self._rejected.reset()
        record.sent(chunk)
        seam = self._followed.take(chunk)
        if seam is not None:
            record.seam(seam, chunk.space)
        self._revision = self.subgoal.revision
        self.observer.sent(self._calls - 1, chunk, self.now_ns)

    def _observed(self) -> Observation:
        assert self.observation is not None, "step() observes before every call"
        return self.observation
