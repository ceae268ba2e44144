"""The loop in real time: a high-level thread, a low-level thread, and a supervisor that can always stop the robot.

The high level never blocks the low level, and neither blocks a stop. Faults and reactions are FACTS' table: a stale
or frozen camera starts no inference, a lost one holds; a high level that outlives its time to live holds; so do three
rejected or five late chunks in a row, and a low level that does not answer for as long as those would take. A hold ends
only when an operator resumes. Chunks that run out need no help from here: the robot's own node decelerates.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from memrt.runtime.background import stand_back
from memrt.runtime.clock import NS_PER_S, Clock, MonotonicClock
from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.following import Followed
from memrt.runtime.loop.high_level_worker import HighLevelWorker
from memrt.runtime.loop.hold_reasons import reason_to_hold
from memrt.runtime.loop.low_level_worker import LowLevelWorker
from memrt.runtime.loop.observer import LoopObserver, NoObserver
from memrt.runtime.loop.progress import CAMERAS, SUPERVISOR, Progress
from memrt.runtime.loop.protocols import HighLevel, LowLevel, TaskRobot
from memrt.runtime.loop.record import Judge, Measured, RunRecord, Status
from memrt.runtime.loop.scheduler import pace
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.loop.shared import Shared
from memrt.runtime.loop.worker import Worker
from memrt.runtime.policy.cancellation import Unanswered
from memrt.runtime.trace import Trace
from memrt.runtime.types import Observation, RobotMode, Subgoal

TICK_NS = 20_000_000  # how often the supervisor looks
JOIN_S = 5.0  # a policy call that takes longer than this at the end is left behind
WARM_UP_CALLS = 2  # the first call pages weights in and allocates, the second shows whether it works again


@dataclass(frozen=True, slots=True)
class LoopStatus:
    """One glance at a running loop. `hold_reason` is "" while the robot is followed."""

    goal: str
    subgoal: Subgoal | None
    memory: Any
    mode: RobotMode
    hold_reason: str
    elapsed_s: float
    record: RunRecord


def warm_up(
    high_level: HighLevel | None,
    low_level: LowLevel,
    goal: str,
    observation: Observation,
    settings: LoopSettings,
    calls: int = WARM_UP_CALLS,
) -> None:
    """Call both policies for nothing, so that no first call is slow in the run. Raises what a policy raises, but for a
    high level served elsewhere that does not answer: it may by the time it is needed.

    None of these calls enters the delay estimate. The later ones continue the chunk before, as those of the run will.
    """
    subgoal, followed = Subgoal(goal, 0, observation.t_ns), Followed(settings)
    for call in range(calls):
        if high_level is not None:
            with suppress(Unanswered):
                high_level.call(goal, observation, high_level.initial())
        playing = None if settings.chunking == "none" else followed.playing(observation.t_ns, delay_steps=1)
        reply = low_level.act(observation, subgoal, goal, low_level.noise(settings.seed, call), playing=playing)
        followed.take(pace(reply.chunk, observation.t_ns, settings))


class RealtimeLoop:
    """One run. `run` blocks; `stop`, `resume`, `home`, `set_goal`, `confirm_subgoal`, `judge` and `quit` may be called
    from any thread."""

    def __init__(
        self,
        robot: TaskRobot,
        high_level: HighLevel | None,
        low_level: LowLevel,
        goal: str,
        settings: LoopSettings,
        *,
        clock: Clock | None = None,
        trace: Trace | None = None,
        observer: LoopObserver | None = None,
        progress: Progress | None = None,
        end_on_hold: bool = False,
    ) -> None:
        """`end_on_hold` ends the run at the first hold: the choice when no operator is there to resume.

        `progress` learns who gets on: the supervisor, both workers, and the cameras while the robot is followed.
        """
        self._robot, self._settings = robot, settings
        self._clock = clock or MonotonicClock()
        self._trace = trace or Trace()
        self._observer = observer or NoObserver()
        self._progress = progress or Progress()
        self._end_on_hold = end_on_hold
        self._has_high_level = high_level is not None
        memory = high_level.initial() if high_level else None
        self._shared = Shared(RunRecord("realtime", goal, settings.seed), memory, settings.cameras)
        shared, now, events = self._shared, self._clock, self._trace
        self.high_level_worker = HighLevelWorker(
            robot, high_level, settings, shared=shared, clock=now, trace=events, observer=observer
        )
        self.low_level_worker = LowLevelWorker(
            robot, low_level, settings, shared=shared, clock=now, trace=events, observer=observer
        )
        self._threads: list[threading.Thread] = []
        self._started_ns = self._clock.now_ns()
        self._end_ns: int | None = None

    @property
    def record(self) -> RunRecord:
        """The record so far."""
        return self._shared.record

    def run(self, duration_s: float | None = None, on_tick: Callable[[RealtimeLoop], None] | None = None) -> RunRecord:
        """Arm, follow the policies until the outcome, a fault, `duration_s` or `quit`, then stop the robot.

        `on_tick` runs in the calling thread between two looks of the supervisor: keys and the display live there.
        Raises what a policy raised, after the robot has been stopped.
        """
        try:
            self.start(duration_s)
            while self.record.status == "running":
                self.tick()
                if on_tick is not None:
                    on_tick(self)
                self._clock.wait_until(self._clock.now_ns() + TICK_NS, self._shared.quit)
        finally:
            self.shutdown()
        if self._shared.error is not None:
            raise self._shared.error
        return self.record

    def start(self, duration_s: float | None = None, threads: bool = True) -> None:
        """Arm the robot and begin. Without `threads` the workers' steps are called by whoever owns the loop."""
        self._robot.arm()
        self._started_ns = self._clock.now_ns()
        self._end_ns = None if duration_s is None else self._started_ns + round(duration_s * NS_PER_S)
        with self._shared.lock:
            epoch = self._shared.epoch
        self._shared.begin_following(self._started_ns, epoch)
        if not threads:
            return
        for name, worker, behind in (
            ("low level", self.low_level_worker, False),
            ("high level", self.high_level_worker, True),
        ):
            thread = threading.Thread(target=self._work, args=(name, worker, behind), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def tick(self) -> None:
        """One look of the supervisor: end, hold, or let go on."""
        shared, now_ns = self._shared, self._clock.now_ns()
        self._trace.collect()  # so that no policy's thread ever has to
        with shared.lock:
            shared.record.duration_ns = now_ns - self._started_ns
            shared.record.steps = shared.record.duration_ns // self._settings.dt_ns
        mode, outcome = self._robot.mode, self._robot.outcome
        oldest = None
        if mode is not RobotMode.FAULT:  # a robot that is gone cannot be observed
            observation = self._robot.observe()
            self._observer.state(mode, observation, now_ns)
            # Also during a hold: a picture that stays while the arm goes home is frozen.
            oldest = shared.cameras.oldest(observation, since_ns=self._started_ns)
        self._progress.rests(SUPERVISOR, now_ns + TICK_NS)
        if shared.following and oldest is not None:
            self._progress.rests(CAMERAS, oldest.t_ns)
        else:
            self._progress.forget(CAMERAS)  # nobody follows them
        if shared.error is not None:
            self._end("fault", f"a policy failed: {shared.error}")
        elif mode is RobotMode.FAULT:
            self._end("fault", self._robot.fault_reason)
        elif outcome.status != "running":
            self._end(outcome.status, outcome.reason, "robot")
        elif self._end_ns is not None and now_ns >= self._end_ns:
            self._end("time_over", "the run's duration has passed")
        elif shared.following and oldest is not None:
            reason = reason_to_hold(
                now_ns,
                self._settings,
                shared,
                mode=mode,
                oldest=oldest,
                refused_in_a_row=self._robot.refused_in_a_row,
                subgoals_expire=self._has_high_level,
            )
            if reason:
                self._hold(reason)

    def restart_measurement(self) -> Measured:
        """Measure afresh from now on, while the run goes on; what had been measured until now."""
        with self._shared.lock:
            return self._shared.record.restart_measurement(self._clock.now_ns() - self._started_ns)

    def stop(self, reason: str = "stopped by the operator") -> None:
        """Stop the robot. From the first instruction on no chunk leaves; returns when the robot says it is at rest.

        Raises MemrtError when the robot does not acknowledge: then nothing is known about it, except that its own
        watchdog stops it as soon as the link is silent.
        """
        self._shared.begin_hold(reason)
        self._event("hold", reason=reason)
        with self._shared.lock:
            self._shared.record.counts["holds"] += 1
        self._robot.stop()

    def resume(self) -> bool:
        """Follow the policies again. False when a stop came in meanwhile: a stop always wins."""
        with self._shared.lock:
            if self._shared.following:
                return True
            epoch = self._shared.epoch
        self._robot.resume()
        if self._shared.begin_following(self._clock.now_ns(), epoch):
            self._event("resume")
            return True
        self._robot.stop()
        return False

    def home(self) -> None:
        """Stop, then let the robot go to its start posture; it stays stopped until `resume`."""
        if self._shared.following:
            self.stop("going home")
        self._robot.home()
        self._event("home")

    def set_goal(self, goal: str) -> None:
        """Give the robot another goal. The high level is asked anew at once, and a call that is running is cancelled.

        Until it has answered, the last subgoal is followed; hold the robot first where that must not be. What becomes
        of the memory is the policy's `memory.on_new_goal`. Raises MemrtError for an empty goal.
        """
        if not goal.strip():
            raise MemrtError("goal", expected="what the robot shall do", found="nothing", fix="give a sentence")
        if self._shared.set_goal(goal):
            self._event("goal", text=goal)

    def confirm_subgoal(self) -> None:
        """The operator's word that the current subgoal has succeeded, for a memory that only successes enter.

        What the VLM wrote last becomes the memory of its next call (`commit: on_success`); other memories ignore it.
        """
        self._shared.confirm_subgoal()
        self._event("subgoal confirmed")

    def judge(self, *, success: bool) -> None:
        """End the run with the operator's word on its outcome, for robots that cannot tell how their task stands."""
        word = "success" if success else "failure"
        self._end("success" if success else "failure", f"{word}, says the operator", "operator")

    def quit(self) -> None:
        """End the run at the next tick."""
        self._end("stopped", "quit by the operator", "operator")

    def status(self) -> LoopStatus:
        """A consistent glance for the display."""
        shared = self._shared
        elapsed_s = (self._clock.now_ns() - self._started_ns) / NS_PER_S
        with shared.lock:
            return LoopStatus(
                shared.record.goal,
                shared.board.subgoal,
                shared.memory,
                self._robot.mode,
                shared.hold_reason,
                elapsed_s,
                shared.record,
            )

    def shutdown(self) -> None:
        """Stop the robot if it can still be reached, and end the threads."""
        self._shared.begin_hold("the run has ended")
        self._shared.quit.set()  # the policies end their calls while the robot comes to rest
        try:
            self._robot.stop()
        except MemrtError as error:  # its own watchdog stops it once the link is silent
            self._event("stop not acknowledged", error=str(error))
            if self.record.status != "fault":
                self.record.reason = f"{self.record.reason}; the final stop was not acknowledged".lstrip("; ")
        self._shared.wake_workers()
        for thread in self._threads:
            self._progress.busy(SUPERVISOR, self._clock.now_ns())
            thread.join(JOIN_S)
            self.record.counts["threads left behind"] += thread.is_alive()
            if not thread.is_alive():
                self._progress.forget(thread.name)
        self._progress.forget(CAMERAS)
        self.record.robot = dict(self._robot.statistics)

    def _hold(self, reason: str) -> None:
        try:
            self.stop(reason)
        except MemrtError as error:
            gone = self._robot.fault_reason  # then the reason to hold was only what was seen of it first
            self._end("fault", f"{gone or reason}; then {error}")
        else:
            if self._end_on_hold:
                self._end("held", reason)

    def _end(self, status: Status, reason: str, by: Judge = "run") -> None:
        with self._shared.lock:
            if self.record.status == "running":
                self.record.status, self.record.reason, self.record.outcome_by = status, reason, by
        self._event("end", status=status, reason=reason, by=by)

    def _event(self, name: str, **arguments: object) -> None:
        now_ns = self._clock.now_ns()
        self._trace.instant(name, "supervisor", now_ns, **arguments)
        self._observer.event(name, "supervisor", now_ns, **arguments)

    def _work(self, name: str, worker: Worker, behind: bool) -> None:
        if behind:  # the low level's inference goes first when both want a core
            stand_back()
        shared = self._shared
        wake = shared.subscribe()
        while not shared.quit.is_set():
            wake.clear()  # before the step: what happens during it must not be slept through
            self._progress.busy(name, self._clock.now_ns())
            try:
                next_ns = worker.step()
            except Exception as error:
                shared.fail(error)
                return
            self._progress.rests(name, next_ns)
            self._clock.wait_until(next_ns, wake)
