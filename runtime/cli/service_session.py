"""`memrt service run`: the service made of what `memrt run` is made of."""

from __future__ import annotations

import faulthandler
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from memrt.runtime.cli.progress import tell
from memrt.runtime.cli.remote_policy import find_remote_bundle
from memrt.runtime.cli.robot_start import start_robot
from memrt.runtime.cli.run_checks import check_halves, check_policy, check_proof, check_robot, check_signer
from memrt.runtime.cli.run_policies import chosen_threads, open_policies
from memrt.runtime.cli.run_recording import RunRecording
from memrt.runtime.clock import MonotonicClock
from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.observer import LoopObserver
from memrt.runtime.loop.protocols import TaskRobot
from memrt.runtime.loop.record import RunRecord
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.memory_lock import lock_memory
from memrt.runtime.recording.retention import keep_newest
from memrt.runtime.service.config import ServiceConfig, read_settings
from memrt.runtime.service.control import ControlServer
from memrt.runtime.service.health import ProvenEngines
from memrt.runtime.service.notify import Notifier
from memrt.runtime.service.parts import Loaded, NotReadyError, Recording
from memrt.runtime.service.server import PolicyFailedError, PolicyService
from memrt.runtime.service.units import BUNDLE_STATUS, COMPUTER_STATUS, SETTINGS_STATUS

if TYPE_CHECKING:  # the robots are imported when a run needs them, never by importing the runtime
    from memrt.robot_io.config import RobotConfig

BROKEN = 1  # exit status; the others are the units'
ENGINE_S = 300.0  # what opening one engine may take: TensorRT for RTX compiles kernels the first time

Say = Callable[[str], None]


def serve(settings: Path, control: Path, node: str | None) -> int:
    """Serve until SIGTERM; the exit status. `node` is where a robot's node listens that was started elsewhere."""
    faulthandler.enable()  # the watchdog's SIGABRT leaves every thread's stack in the log
    notifier, clock = Notifier.from_environment(), MonotonicClock()
    with ExitStack() as stack:
        try:
            config = read_settings(settings)
            parts = RobotParts(config, node, stack, notifier, tell)
            service = PolicyService(
                parts, notifier, clock, hang_s=config.hang_s, health_calls=config.health_calls, say=tell
            )
            stack.enter_context(ControlServer(control, service.answer, service.status))
        except MemrtError as error:
            return _refuse(notifier, error, SETTINGS_STATUS)
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signal_number, lambda number, frame: _end(service, parts))
        lock_memory()
        try:
            service.run()
        except MemrtError as error:
            return _refuse(notifier, error, BUNDLE_STATUS)
        except NotReadyError as error:
            return _refuse(notifier, error, COMPUTER_STATUS)
        except PolicyFailedError as error:
            tell(f"a policy failed: {error}")
            return BROKEN
    return 0


def _end(service: PolicyService, parts: RobotParts) -> None:
    service.quit()
    if not parts.loaded:
        raise SystemExit(0)


def _refuse(notifier: Notifier, error: Exception, status: int) -> int:
    notifier.status(f"refused: {error}")
    tell(f"memrt: {error}")
    return status


class RobotParts:
    """The real `Parts`: the bundle and the robot that the settings name. What is loaded is closed with `stack`."""

    def __init__(self, config: ServiceConfig, node: str | None, stack: ExitStack, notifier: Notifier, say: Say) -> None:
        """Raises MemrtError for an unknown robot, and for settings that do not go together."""
        self._config, self._stack, self._notifier, self._say = config, stack, notifier, say
        self._robot = _at_node(check_robot(config.robot, config.task, config.seed, config.speed, config.host), node)
        self._threads = chosen_threads(config.threads)
        self._cache = None if config.cache is None else Path(config.cache)
        self._bundle_path = Path(config.bundle).expanduser().resolve()  # what `current` names now stays what runs
        self._run: Callable[[str], Recording] | None = None
        self.loaded = False

    @property
    def robot_name(self) -> str:
        """The robot's name."""
        return self._robot.name

    @property
    def bundle_path(self) -> str:
        """The bundle's folder."""
        return str(self._bundle_path)

    def load(self) -> Loaded:
        """Check as `memrt run` does, open the policies, and prove every engine as it is opened."""
        config, robot = self._config, self._robot
        bundle = find_remote_bundle(self._bundle_path, None, "int8", config.remote)
        check_halves(bundle, robot)
        settings = LoopSettings.from_policy(bundle.policy, seed=config.seed, speed=config.speed)
        check_policy(bundle, robot, settings, lockstep=False)
        keys = None if config.keys is None else Path(config.keys)
        check_signer(bundle, robot, moves=True, keys=keys, allow_unsigned=config.allow_unsigned)
        try:
            check_proof(bundle, robot, moves=True, cache=self._cache)
            engines = ProvenEngines.prepare(bundle, self._before_engine, cache=self._cache)
        except MemrtError as error:
            raise NotReadyError(str(error)) from error
        high_level, low_level = open_policies(
            bundle, self._threads, self._stack, engines=engines, policy_server=robot.policy_server
        )

        def record(goal: str) -> Recording:
            if config.record is None:
                return Unrecorded()
            path = Path(config.record) / f"{time.strftime('%Y%m%d-%H%M%S')}-{bundle.policy.name}.mcap"
            about = {
                "mode": "realtime",
                "goal": goal,
                "robot": config.robot,
                "simulated": robot.simulated,
                "task": config.task,
                "threads": str(self._threads),
            }
            try:
                if config.record_keep_gb is not None:
                    for gone in keep_newest(path.parent, int(config.record_keep_gb * 1e9)):
                        self._say(f"{gone.name} is deleted: record_keep_gb is {config.record_keep_gb:g}")
                free = int(config.record_free_gb * 1e9)
                return McapRecording(RunRecording(path, config.record_frames, bundle, settings, about, keep_free=free))
            except (MemrtError, OSError) as error:
                self._say(f"this run is not recorded: {error}")
                return Unrecorded()

        self._run, self.loaded = record, True
        return Loaded(
            high_level=high_level,
            low_level=low_level,
            settings=settings,
            goal=config.goal or "",
            bundle=bundle.sha256,
            policy=bundle.policy.name,
            device=engines.device.describe(),
            proofs=tuple(engines.found),
        )

    @contextmanager
    def connect(self) -> Iterator[TaskRobot]:
        """A session with the robot's node, which is started here unless it runs already."""
        config = self._config
        with ExitStack() as session:
            yield start_robot(
                self._robot,
                config.robot,
                task=config.task,
                seed=config.seed,
                speed=config.speed,
                host=config.host,
                stack=session,
                tell=self._say,
            )()

    def goal_of(self, robot: TaskRobot) -> str:
        """The simulator knows its task."""
        return str(getattr(robot, "goal", ""))

    def record(self, goal: str) -> Recording:
        """A new file in the folder that the settings name."""
        assert self._run is not None, "loaded before"
        return self._run(goal)

    def _before_engine(self, name: str) -> None:
        self._notifier.needs(ENGINE_S)
        self._notifier.status(f"loading: {name}")


class Unrecorded:
    """A run of which nothing is kept."""

    observer: LoopObserver | None = None

    def look(self, say: Say) -> None:
        """Nothing can go wrong."""

    def finish(self, record: RunRecord) -> dict[str, Any] | None:
        """Nothing was written."""
        return None


class McapRecording:
    """A run that is recorded as `memrt run --record` does it."""

    def __init__(self, recording: RunRecording) -> None:
        self._recording = recording
        self.observer: LoopObserver | None = recording.recorder

    def look(self, say: Say) -> None:
        """Say once that the recording has ended early."""
        self._recording.alarm(say, None, time.monotonic_ns())

    def finish(self, record: RunRecord) -> dict[str, Any] | None:
        """End the file."""
        return self._recording.finish(record)


def _at_node(robot: RobotConfig, node: str | None) -> RobotConfig:
    if node is None or robot.link.endpoint is not None:
        return robot
    return msgspec.structs.replace(robot, link=msgspec.structs.replace(robot.link, endpoint=node))
