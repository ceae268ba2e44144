"""The service: what `memrt run` does, begun by the computer and commanded by a socket in place of a terminal.

One thread owns the robot: it loads the policy, waits for the robot, checks that all is well, and stands by. Arming
begins a run (`RealtimeLoop`); at its end the session with the robot's node is closed and a new one begun, which comes
up disarmed. Nothing but the word `arm` arms, and no fault, restart or reboot says it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer
from dataclasses import dataclass, field
from typing import Any

from memrt.runtime.clock import NS_PER_MS, NS_PER_S, Clock
from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.progress import SUPERVISOR, Progress
from memrt.runtime.loop.protocols import TaskRobot
from memrt.runtime.loop.realtime import RealtimeLoop, warm_up
from memrt.runtime.service.control import ANSWER_S, Request
from memrt.runtime.service.health import HealthReport, check_cameras, check_low_level
from memrt.runtime.service.notify import Notifier
from memrt.runtime.service.parts import Loaded, Parts
from memrt.runtime.service.status import Phase, ServiceStatus
from memrt.runtime.service.watchdog import WatchdogThread
from memrt.runtime.types import RobotMode

RETRY_S = 5.0  # between two attempts to reach a robot that is switched off, or to find cameras that are unplugged
STAND_BY_NS = 200 * NS_PER_MS  # how often the service looks at a robot that stands still
PATIENCE_NS = 120 * NS_PER_S  # for connecting (60 s at most), the health check, and closing; the robot stands still


class PolicyFailedError(Exception):
    """A policy raised in a run: for whoever restarts the service."""


@dataclass(slots=True)
class _Arming:
    goal: str | None
    answer: Future[None] = field(default_factory=Future)

    def refuse(self, error: MemrtError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class PolicyService:
    """`run` blocks in the thread that owns the robot; `answer`, `status` and `quit` may be called from any."""

    def __init__(
        self,
        parts: Parts,
        notifier: Notifier,
        clock: Clock,
        *,
        hang_s: float,
        health_calls: int,
        say: Callable[[str], None],
    ) -> None:
        """`say` gets one line for the log. `hang_s`, `health_calls`: see `ServiceConfig`."""
        self._parts, self._notifier, self._clock, self._say = parts, notifier, clock, say
        self._hang_s, self._health_calls = hang_s, health_calls
        self._progress = Progress()
        self._quit, self._wake = threading.Event(), threading.Event()
        self._lock = threading.Lock()  # of the next six
        self._phase: Phase = "loading"
        self._reason = ""
        self._arming: _Arming | None = None
        self._loop: RealtimeLoop | None = None
        self._health: HealthReport | None = None
        self._last_run: dict[str, Any] | None = None
        self._at_rest = threading.Event()  # set while no run is on
        self._at_rest.set()
        self._began_s = time.monotonic()

    def run(self) -> None:
        """Load, then serve until `quit`. Raises what `Parts.load` raises, and PolicyFailedError."""
        self._tell("loading")
        loaded = self._parts.load()
        self._notifier.ready()
        self._beat(PATIENCE_NS)
        with WatchdogThread(self._progress, self._notifier, self._clock, self._hang_s, self._say):
            while not self._quit.is_set():
                try:
                    self._serve_robot(loaded)
                except MemrtError as error:
                    self._enter("waiting", str(error))
                    self._pause()
            self._notifier.stopping()

    def quit(self) -> None:
        """End the run, if one is on, and the service: the arm is at rest when `run` returns."""
        self._quit.set()
        self._wake.set()
        if (loop := self._loop) is not None:
            loop.quit()

    def answer(self, request: Request) -> None:
        """Carry out a request. Raises MemrtError for one that is refused."""
        if request.verb == "arm":
            self._arm(request.goal)
        elif request.verb == "disarm":
            self._disarm()
        elif request.verb != "status":
            loop = self._loop
            if loop is None:
                raise MemrtError(f"`{request.verb}`", expected="a run", found=self._phase, fix="memrt service arm")
            if request.verb == "stop":
                loop.stop()
            elif request.verb == "home":
                loop.home()
            elif request.verb == "goal":
                loop.set_goal(request.goal or "")
            elif not loop.resume():
                raise MemrtError("resuming", expected="no stop meanwhile", found="a stop", fix="resume once more")

    def status(self) -> dict[str, Any]:
        """The service as it is, as plain JSON values."""
        with self._lock:
            loop, phase, reason = self._loop, self._phase, self._reason
            health, last_run = self._health, self._last_run
        seen = None if loop is None else loop.status()
        if seen is not None and seen.hold_reason:
            phase, reason = "held", seen.hold_reason
        return ServiceStatus(
            phase=phase,
            reason=reason,
            robot=self._parts.robot_name,
            bundle=self._parts.bundle_path,
            goal=seen.goal if seen else "",
            subgoal=seen.subgoal.text if seen and seen.subgoal else "",
            health=health,
            last_run=last_run,
            up_s=round(time.monotonic() - self._began_s, 1),
            pid=os.getpid(),
        ).to_dict()

    def _serve_robot(self, loaded: Loaded) -> None:
        """One session: check, stand by, at most one run. Raises MemrtError when the robot is not there, or leaves."""
        if self._phase not in ("waiting", "unhealthy"):  # else it is said already what is wrong
            self._enter("waiting", f"for robot {self._parts.robot_name}")
        self._beat(PATIENCE_NS)
        try:
            with self._parts.connect() as robot:
                self._refuse_fault(robot)
                goal = loaded.goal or self._parts.goal_of(robot)
                if not self._check(loaded, robot, goal):
                    self._pause()
                elif (arming := self._stand_by(robot)) is not None:
                    self._drive(loaded, robot, arming, arming.goal or goal)
        finally:
            self._beat(PATIENCE_NS)  # closing waits for the arm, and for a node that was started here

    def _check(self, loaded: Loaded, robot: TaskRobot, goal: str) -> bool:
        checks = [*loaded.proofs, check_cameras(robot.observe, loaded.settings, self._clock)]
        if checks[-1].met:
            text = goal or "nothing"  # how fast a policy is does not depend on the words
            warm_up(loaded.high_level, loaded.low_level, text, robot.observe(), loaded.settings)
            calls = self._health_calls
            checks.append(check_low_level(loaded.low_level, robot.observe, text, loaded.settings, self._clock, calls))
        report = HealthReport(bundle=loaded.bundle, policy=loaded.policy, device=loaded.device, checks=tuple(checks))
        with self._lock:
            self._health = report
        self._enter("disarmed" if report.healthy else "unhealthy", report.complaint)
        return report.healthy

    def _stand_by(self, robot: TaskRobot) -> _Arming | None:
        """Wait for the word; None when the service is to end. Raises MemrtError when the robot goes into fault."""
        while not self._quit.is_set():
            self._beat(STAND_BY_NS)
            self._wake.wait(STAND_BY_NS / NS_PER_S)
            self._wake.clear()
            self._refuse_fault(robot)
            with self._lock:
                if self._arming is not None:
                    arming, self._arming, self._phase = self._arming, None, "running"
                    return arming
        return None

    def _drive(self, loaded: Loaded, robot: TaskRobot, arming: _Arming, goal: str) -> None:
        """One run, from arming to rest."""
        try:
            _refuse_to_arm(robot, goal)
        except MemrtError as refusal:
            arming.refuse(refusal)
            return
        recording = self._parts.record(goal)
        loop = RealtimeLoop(
            robot,
            loaded.high_level,
            loaded.low_level,
            goal,
            loaded.settings,
            clock=self._clock,
            observer=recording.observer,
            progress=self._progress,
        )
        said = ""

        def on_tick(running: RealtimeLoop) -> None:
            nonlocal said
            if not arming.answer.done():
                arming.answer.set_result(None)
            if self._quit.is_set():
                running.quit()
            status = running.status()
            words = f"held: {status.hold_reason}" if status.hold_reason else f"running: {status.goal}"
            if words != said:
                said = words
                self._tell(words)
            recording.look(self._say)

        with self._lock:
            self._loop = loop
        self._at_rest.clear()
        try:
            loop.run(on_tick=on_tick)
        except MemrtError as error:
            if arming.answer.done():
                raise PolicyFailedError(str(error)) from error
            arming.refuse(error)
        finally:
            record = loop.record
            ended = {"outcome": record.status, "reason": record.reason, "duration_s": record.duration_ns / NS_PER_S}
            with self._lock:
                self._loop, self._last_run = None, {"goal": record.goal, **ended}
                self._phase, self._reason = "waiting", "for a new session with the robot"
            self._at_rest.set()
            self._beat(PATIENCE_NS)
            recorded = recording.finish(record)  # waits for the disk
            with self._lock:
                self._last_run = {"goal": record.goal, **ended, "recording": recorded}
            arming.refuse(MemrtError("arming", expected="a run", found=record.reason, fix="memrt service logs"))
            self._tell(f"the run has ended: {record.status} {record.reason}".rstrip())

    def _arm(self, goal: str | None) -> None:
        with self._lock:
            if self._phase != "disarmed" or self._arming is not None:
                raise MemrtError(
                    "arming",
                    expected="a service that is disarmed and healthy",
                    found=f"{self._phase}: {self._reason}" if self._reason else self._phase,
                    fix="see `memrt service status`; a run that is held goes on with `memrt service resume`",
                )
            arming = self._arming = _Arming(goal)
        self._wake.set()
        try:
            arming.answer.result(ANSWER_S - 1.0)
        except NoAnswer:
            with self._lock:
                self._arming = None
            self._disarm()
            raise MemrtError("arming", expected="the robot's answer", found="none", fix="arm again") from None

    def _disarm(self) -> None:
        if (loop := self._loop) is not None:
            loop.quit()
        if not self._at_rest.wait(ANSWER_S - 1.0):
            raise MemrtError(
                "disarming",
                expected="the end of the run",
                found="a run that has not ended",
                fix="use the emergency stop, then `systemctl restart memrt`",
            )

    def _refuse_fault(self, robot: TaskRobot) -> None:
        if robot.mode is RobotMode.FAULT:
            raise MemrtError(
                f"robot {self._parts.robot_name}",
                expected="a robot without a fault",
                found=robot.fault_reason,
                fix="clear the fault at the robot; the service looks again by itself",
            )

    def _enter(self, phase: Phase, reason: str = "") -> None:
        """Another phase. Whoever waits to arm is told that it cannot be."""
        with self._lock:
            changed = phase != self._phase or (phase != "unhealthy" and reason != self._reason)
            self._phase, self._reason = phase, reason
            arming = self._arming
            if phase != "disarmed":
                self._arming = None
        if arming is not None and phase != "disarmed":
            arming.refuse(MemrtError("arming", expected="a robot that is ready", found=reason, fix="arm again later"))
        if changed:
            self._tell(f"{phase}: {reason}" if reason else phase)

    def _tell(self, words: str) -> None:
        self._notifier.status(words)
        self._say(words)

    def _pause(self) -> None:
        self._beat(round(RETRY_S * NS_PER_S))
        self._quit.wait(RETRY_S)

    def _beat(self, until_ns: int) -> None:
        """The owner of the robot is heard of again by then."""
        self._progress.rests(SUPERVISOR, self._clock.now_ns() + until_ns)


def _refuse_to_arm(robot: TaskRobot, goal: str) -> None:
    if not goal:
        raise MemrtError(
            "arming", expected="a goal", found="none", fix="memrt service arm --goal TEXT, or `goal:` in the settings"
        )
    if robot.outcome.status != "running":
        raise MemrtError(
            "arming",
            expected="a task that is still to be done",
            found=f"{robot.outcome.status}: the simulator plays one episode",
            fix="sudo systemctl restart memrt-node",
        )
