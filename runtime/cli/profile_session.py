"""What `memrt profile` does: check, load, measure the windows, write and print what was found."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memrt.runtime.bench.hardware import hardware, versions
from memrt.runtime.bundle import Bundle, load_bundle, require_halves
from memrt.runtime.cli.default_bundle import find_bundle
from memrt.runtime.cli.profile_report import print_report
from memrt.runtime.cli.progress import tell
from memrt.runtime.cli.robot_start import start_robot
from memrt.runtime.cli.run_checks import check_bundle, check_policy, check_robot, check_sees
from memrt.runtime.cli.run_policies import open_policies
from memrt.runtime.cli.run_report import about_run
from memrt.runtime.clock import NS_PER_S
from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.protocols import TaskRobot
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.profile.chrome_trace import write_trace
from memrt.runtime.profile.document import as_document
from memrt.runtime.profile.hardware_state import cpu_clocks, hardware_state
from memrt.runtime.profile.measurement import OpenRobot, Subject, measure
from memrt.runtime.profile.page import page
from memrt.runtime.profile.protocol import ProfileProtocol
from memrt.runtime.profile.synthetic_robot import SyntheticRobot
from memrt.runtime.readiness import Readiness
from memrt.runtime.thread_budget import ThreadBudget

if TYPE_CHECKING:  # the robots are imported when a run needs them, never by importing the runtime
    from memrt.robot_io.config import RobotConfig

NO_ROBOT = "none"
NO_GOAL = "pick up the red cube and place it on the target"  # something to read, where no task says what to do
JSON_FILE, HTML_FILE, TRACE_FILE = "profile.json", "profile.html", "trace.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileOptions:
    """The options of `memrt profile`, see its help."""

    robot: str
    host: str | None
    task: str
    policy: str | None
    bundle: Path | None
    cache: Path | None
    keys: Path | None
    allow_unsigned: bool
    precision: str
    goal: str | None
    seed: int
    seconds: float
    speed: float
    threads: ThreadBudget
    arm: bool
    output: Path
    as_json: bool


def profile(options: ProfileOptions) -> None:
    """Measure, write the three files, print. Raises MemrtError for what is refused and for a run that keeps ending."""
    began_ns = time.monotonic_ns()
    robot = (
        None
        if options.robot == NO_ROBOT
        else check_robot(options.robot, options.task, options.seed, options.speed, options.host)
    )
    bundle = load_bundle(find_bundle(options.bundle, options.policy, options.precision))
    require_halves(bundle)
    settings = LoopSettings.from_policy(bundle.policy, seed=options.seed, speed=options.speed)
    check_sees(bundle, "choose a policy with a VLM")
    if robot is not None:
        check_policy(bundle, robot, settings, lockstep=False)
        check_bundle(
            bundle,
            robot,
            moves=True,
            cache=options.cache,
            keys=options.keys,
            allow_unsigned=options.allow_unsigned,
        )
        _check_arm(robot, options.arm)
    _make_folder(options.output)
    state = {**hardware(), **hardware_state()}
    protocol = ProfileProtocol(seconds=options.seconds)
    ready: list[Readiness] = []
    with ExitStack() as stack:
        high_level, low_level = open_policies(bundle, options.threads, stack, cache=options.cache)
        assert high_level is not None, "check_sees refuses a policy without a VLM"
        subject = Subject(
            high_level=high_level,
            low_level=low_level,
            settings=settings,
            open_robot=_synthetic(bundle, settings) if robot is None else _connected(robot, options),
            goal=options.goal,
        )
        windows = measure(subject, protocol, tell, lambda: None if ready else ready.append(Readiness.now(began_ns)))
    about = about_run(bundle, options.robot, ready[0])
    on_gpu = about["hardware"]["device"] != "cpu"
    clocks_after = cpu_clocks()
    about |= {
        "task": None if robot is None else options.task,
        "seed": options.seed,
        "speed": options.speed,
        "threads": str(options.threads),
        "hardware": {**state, "device": about["hardware"]["device"]}
        | ({"cpu_clocks_after": clocks_after} if clocks_after else {}),
        "versions": {**versions(("memrt", "numpy")), **about["versions"]},
        "measured_on": "GPU" if on_gpu else "CPU",
    }
    document = as_document(about, settings, protocol, windows)
    write_trace(options.output / TRACE_FILE, windows)
    (options.output / JSON_FILE).write_text(json.dumps(document, allow_nan=False) + "\n", encoding="utf-8")
    (options.output / HTML_FILE).write_text(page(document), encoding="utf-8")
    if options.as_json:
        print(json.dumps(document, allow_nan=False))
    else:
        print_report(document, options.output)


def _connected(config: RobotConfig, options: ProfileOptions) -> OpenRobot:
    """A node of its own for every episode, as `memrt run` starts one; a robot with an endpoint is connected to anew."""

    @contextmanager
    def open_robot(seed: int) -> Iterator[tuple[TaskRobot, str]]:
        with ExitStack() as stack:
            robot = start_robot(
                config,
                options.robot,
                task=options.task,
                seed=seed,
                speed=options.speed,
                host=options.host,
                stack=stack,
                tell=tell,
            )()
            goal = options.goal or robot.goal
            if not goal:
                raise MemrtError("goal", expected="what the robot shall do", found="nothing", fix="give --goal")
            yield robot, goal

    return open_robot


def _synthetic(bundle: Bundle, settings: LoopSettings) -> OpenRobot:
    """Pictures as large as the high level's, as often as the policy acts."""

    def open_robot(seed: int) -> AbstractContextManager[tuple[TaskRobot, str]]:
        size = bundle.policy.high_level.frame_size
        robot = SyntheticRobot(settings.cameras, size, seed=seed, frame_hz=NS_PER_S / settings.dt_ns)
        return _held(robot)

    return open_robot


@contextmanager
def _held(robot: TaskRobot) -> Iterator[tuple[TaskRobot, str]]:
    try:
        yield robot, NO_GOAL
    finally:
        robot.close()


def _check_arm(robot: RobotConfig, allowed: bool) -> None:
    if not robot.simulated and not allowed:
        raise MemrtError(
            f"profiling moves robot `{robot.name}`",
            expected="--arm: somebody watches it and holds the emergency stop",
            found="no --arm",
            fix="add --arm, or profile with --robot sim or --robot none",
        )


def _make_folder(folder: Path) -> None:
    """Before anything is measured: a profile that cannot be written is minutes lost."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe: Any = folder / f"{JSON_FILE}.part"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise MemrtError(
            f"folder {folder}", expected="a folder that can be written", found=error, fix="give another -o FOLDER"
        ) from error
