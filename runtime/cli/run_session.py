"""What `memrt run` does: check, load, connect, warm up, run, report."""

from __future__ import annotations

import signal
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memrt.runtime.bundle import Bundle
from memrt.runtime.cli.keys import Keys
from memrt.runtime.cli.operator_keys import OperatorKeys
from memrt.runtime.cli.remote_policy import find_remote_bundle
from memrt.runtime.cli.robot_start import start_robot
from memrt.runtime.cli.run_checks import check_bundle, check_halves, check_lockstep, check_policy, check_robot
from memrt.runtime.cli.run_display import Display, note
from memrt.runtime.cli.run_policies import find_scripted, open_policies, open_scripted
from memrt.runtime.cli.run_recording import RunRecording, check_record
from memrt.runtime.cli.run_report import Plan, report_plan, report_run
from memrt.runtime.cli.run_video import VideoThread, video_texts
from memrt.runtime.clock import NS_PER_S, MonotonicClock
from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.lockstep import StepView, run_lockstep
from memrt.runtime.loop.protocols import HighLevel, LowLevel
from memrt.runtime.loop.realtime import LoopStatus, RealtimeLoop, warm_up
from memrt.runtime.loop.record import RunRecord
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.readiness import Readiness
from memrt.runtime.recording.recorder import Frames, McapRecorder
from memrt.runtime.thread_budget import ThreadBudget
from memrt.runtime.trace import Trace
from memrt.runtime.types import Observation, RobotMode, Subgoal
from memrt.runtime.video import VideoWriter

if TYPE_CHECKING:  # the robots are imported when a run needs them, never by importing the runtime
    from memrt.robot_io.config import RobotConfig
    from memrt.robot_io.link.client import LinkRobot
    from memrt.sim.scripted import ScriptedPolicy

NODE_LINES = 20  # of the node that wait to be shown
RAN, BROKEN_OFF = 0, 1  # exit statuses; a refusal is 2, see the CLI's main


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The options of `memrt run`, see its help."""

    robot: str
    host: str | None
    task: str
    policy: str | None
    bundle: Path | None
    cache: Path | None
    keys: Path | None
    allow_unsigned: bool
    precision: str
    remote: str | None
    goal: str | None
    seed: int
    lockstep: bool
    dry_run: bool
    speed: float
    duration: float | None
    video: Path | None
    trace: Path | None
    record: Path | None
    record_frames: Frames
    threads: ThreadBudget
    as_json: bool


def run(options: RunOptions) -> int:
    """Run as asked; the exit status. Raises MemrtError for everything that can be refused before the robot moves."""
    began_ns = time.monotonic_ns()
    robot_config = check_robot(options.robot, options.task, options.seed, options.speed, options.host)
    scripted = find_scripted(options.policy) if options.bundle is None else None
    if scripted is None:
        bundle = find_remote_bundle(options.bundle, options.policy, options.precision, options.remote)
        check_halves(bundle, robot_config)
    else:
        bundle = scripted.bundle
    settings = LoopSettings.from_policy(bundle.policy, seed=options.seed, speed=options.speed)
    if options.duration is not None:
        steps = max(1, round(options.duration * NS_PER_S / settings.dt_ns))
        # The benchmark's cap on steps is for its simulated episodes; a robot moves for as long as it is told to.
        settings = replace(settings, cap_steps=min(settings.cap_steps, steps) if robot_config.simulated else steps)
    if options.lockstep:
        check_lockstep(robot_config)
    check_policy(bundle, robot_config, settings, lockstep=options.lockstep or scripted is not None)
    if scripted is None:
        check_bundle(
            bundle,
            robot_config,
            moves=not options.dry_run,
            cache=options.cache,
            keys=options.keys,
            allow_unsigned=options.allow_unsigned,
        )
    with ExitStack() as stack:
        session = _Session(options, bundle, settings, stack, began_ns, robot_config, scripted)
        if options.lockstep:
            return session.run_lockstep()
        return session.run_realtime(robot_config)


class _Session:
    """What both modes share: policies, display, video, trace; everything is closed by `stack`."""

    def __init__(
        self,
        options: RunOptions,
        bundle: Bundle,
        settings: LoopSettings,
        stack: ExitStack,
        began_ns: int,
        robot_config: RobotConfig,
        scripted: ScriptedPolicy | None,
    ) -> None:
        self._options, self._bundle, self._settings, self._stack = options, bundle, settings, stack
        self._began_ns, self._robot_config, self._scripted = began_ns, robot_config, scripted
        self._trace = Trace() if options.trace else None
        self._video: VideoWriter | None = None
        self._node_said: deque[str] = deque(maxlen=NODE_LINES)
        if options.trace and not options.trace.absolute().parent.is_dir():
            raise MemrtError(
                f"trace {options.trace}",
                expected="a file in a folder that exists",
                found=f"no folder {options.trace.absolute().parent}",
                fix="create the folder, or correct --trace",
            )
        check_record(options.record)
        self._recording: RunRecording | None = None

    def run_lockstep(self) -> int:
        """The simulator in this process; its time waits for the policies."""
        from memrt.sim.env import TabletopEnv
        from memrt.sim.oracle import OracleHighLevel

        options, settings, policy = self._options, self._settings, self._bundle.policy
        control_hz = policy.low_level.control_hz
        env = TabletopEnv(options.task, options.seed, speed=options.speed, control_hz=control_hz)
        self._stack.enter_context(env)
        high_level, low_level = self._open_policies()
        if policy.high_level.source == "oracle":
            high_level = OracleHighLevel(env, policy.memory.subgoal_style)
        goal = options.goal or env.goal
        if options.dry_run:
            return self._dry_run(high_level, low_level, goal, env.observe, {})
        readiness = self._warm_up(high_level, low_level, goal, env.observe())
        video = self._open_video()
        display = self._stack.enter_context(Display(options.as_json))

        def on_step(view: StepView) -> None:
            status = LoopStatus(
                goal, view.subgoal, view.state, RobotMode.RUNNING, "", view.record.duration_ns / NS_PER_S, view.record
            )
            display.show(status, {})
            self._alarm(display, view.observation.t_ns)
            if video is not None:
                camera = policy.high_level.camera
                video.add(env.observe().frames[camera].image, video_texts(status))

        observer = self._open_recording("lockstep", goal)
        record = run_lockstep(
            env, high_level, low_level, goal, settings, on_step=on_step, trace=self._trace, observer=observer
        )
        return self._finish(record, readiness)

    def run_realtime(self, robot_config: RobotConfig) -> int:
        """The robot behind its link; policies in threads; an operator at the keys."""
        options, settings = self._options, self._settings
        robot, (high_level, low_level) = self._connect(robot_config)
        goal = options.goal or robot.goal
        if not goal:
            raise MemrtError("goal", expected="what the robot shall do", found="nothing", fix="give --goal")
        if options.dry_run:
            return self._dry_run(high_level, low_level, goal, robot.observe, robot.statistics)
        readiness = self._warm_up(high_level, low_level, goal, robot.observe())
        video = self._open_video()
        keys = self._stack.enter_context(Keys())
        loop = RealtimeLoop(
            robot,
            high_level,
            low_level,
            goal,
            settings,
            trace=self._trace,
            observer=self._open_recording("realtime", goal),
            end_on_hold=not keys.available,
        )
        display = self._stack.enter_context(Display(options.as_json, keys.available))
        if video is not None:
            camera = self._bundle.policy.high_level.camera
            self._stack.enter_context(VideoThread(video, robot, loop, camera))
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            before = signal.signal(signal_number, lambda number, frame: loop.quit())
            self._stack.callback(signal.signal, signal_number, before)

        operator = OperatorKeys(loop, display)

        def on_tick(running: RealtimeLoop) -> None:
            operator.press(keys.pressed())
            while self._node_said:
                display.note(self._node_said.popleft())
            display.show(running.status(), robot.statistics)
            self._alarm(display, time.monotonic_ns())

        return self._finish(loop.run(options.duration, on_tick), readiness)

    def _open_policies(self) -> tuple[HighLevel | None, LowLevel]:
        options = self._options
        if self._scripted is not None:
            return open_scripted(self._scripted, options.task, options.seed)
        return open_policies(
            self._bundle,
            options.threads,
            self._stack,
            cache=options.cache,
            policy_server=self._robot_config.policy_server,
        )

    def _connect(self, config: RobotConfig) -> tuple[LinkRobot, tuple[HighLevel | None, LowLevel]]:
        """Start the node, load the policies while it starts, then connect: loading would starve the heartbeat."""
        options = self._options
        connect = start_robot(
            config,
            options.robot,
            task=options.task,
            seed=options.seed,
            speed=options.speed,
            host=options.host,
            stack=self._stack,
            tell=self._node_said.append,
        )
        policies = self._open_policies()
        return connect(), policies

    def _warm_up(
        self, high_level: HighLevel | None, low_level: LowLevel, goal: str, observation: Observation
    ) -> Readiness:
        warm_up(high_level, low_level, goal, observation, self._settings)
        return Readiness.now(self._began_ns)

    def _open_video(self) -> VideoWriter | None:
        if self._options.video is None:
            return None
        order = self._bundle.policy.memory.coordinate_order
        self._video = self._stack.enter_context(VideoWriter(self._options.video, order))
        return self._video

    def _open_recording(self, mode: str, goal: str) -> McapRecorder | None:
        options = self._options
        if options.record is None:
            return None
        run = {
            "mode": mode,
            "goal": goal,
            "robot": options.robot,
            "simulated": self._robot_config.simulated,
            "task": options.task,
            "threads": str(options.threads),
        }
        if (remote := self._bundle.policy.high_level.remote) is not None:
            run["remote"] = remote.endpoint
        self._recording = RunRecording(options.record, options.record_frames, self._bundle, self._settings, run)
        return self._stack.enter_context(self._recording.recorder)

    def _alarm(self, display: Display, t_ns: int) -> None:
        if self._recording is not None:
            self._recording.alarm(display.note, self._trace, t_ns)

    def _dry_run(self, high_level: HighLevel | None, low_level: LowLevel, goal: str, observe: Any, robot: Any) -> int:
        clock = MonotonicClock()
        observation = observe()
        readiness = self._warm_up(high_level, low_level, goal, observation)
        timed = RunRecord("realtime", goal, self._options.seed)
        subgoal_text = goal
        for call in range(3):
            start_ns = clock.now_ns()
            if high_level is not None:
                subgoal_text = high_level.call(goal, observation, high_level.initial()).subgoal
                timed.latency("high level", clock.now_ns() - start_ns)
            start_ns = clock.now_ns()
            noise = low_level.noise(self._settings.seed, call)
            low_level.act(observation, Subgoal(subgoal_text, 1, observation.t_ns), goal, noise)
            timed.latency("low level", clock.now_ns() - start_ns)
        plan = Plan(
            self._bundle, self._settings, goal, subgoal_text, self._options.robot, timed, dict(robot), readiness
        )
        report_plan(plan, self._options.as_json)
        return RAN

    def _finish(self, record: RunRecord, readiness: Readiness) -> int:
        recording = self._recording.finish(record) if self._recording else None
        self._stack.close()  # the display and the video are done before the report is printed
        if self._trace is not None and self._options.trace is not None:
            try:
                self._trace.write(self._options.trace)
            except OSError as error:
                note(f"no trace was written: {error}")
        if self._video is not None and self._video.failure:
            note(self._video.failure)
        options = self._options
        report_run(record, self._bundle, options.robot, options.task, readiness, recording, as_json=options.as_json)
        return BROKEN_OFF if record.status in ("fault", "held") else RAN
