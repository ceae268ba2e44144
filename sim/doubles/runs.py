"""One `memrt run` against a double, as a user would start it, and what came of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from memrt.robot_io.config import load_robot
from memrt.runtime._core import FrameRing
from memrt.runtime.errors import MemrtError
from memrt.runtime.packaged import packaged_file
from memrt.sim.doubles.command_log import CommandLog
from memrt.sim.doubles.limit_oracle import Verdict, judge
from memrt.sim.doubles.process import FrankyDoubleProcess, own_loopback
from memrt.sim.doubles.strict_double import Abort, StrictDoubleProcess

ROBOT = "franka-double"
NICE = -10  # where permitted: tried out beside other work, the run stands for a robot's own computer
LOOK_S = 0.25
END_S = 30.0  # how long a run may take to stop the arm and report
START_S = 120.0  # how long it may take until the arm moves
AFTERWARDS_S = 1.0  # the run goes on for this long when the task is decided
CARD = (48, 64, 3)


class MemrtRun:
    """`memrt run` in a process of its own. `end` gives its report."""

    def __init__(self, arguments: Sequence[str]) -> None:
        command = [sys.executable, "-c", "from memrt.runtime.cli import main; main()", "run", "--json", *arguments]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `end`
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, NICE)
            Path(f"/proc/{self._process.pid}/autogroup").write_text(str(NICE))

    @property
    def running(self) -> bool:
        """Whether it goes on."""
        return self._process.poll() is None

    def end(self) -> dict[str, Any]:
        """Let it stop the arm and report. Raises MemrtError with its last words when it does not."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)
        try:
            said, _ = self._process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            said, _ = self._process.communicate()
        self._errors.seek(0)
        words = self._errors.read().strip().splitlines()
        self._errors.close()
        if not said.strip():
            raise MemrtError(
                "memrt run",
                expected="a report",
                found=words[-1] if words else f"exit status {self._process.returncode} without a word",
                fix="run the same command by hand",
            )
        report: dict[str, Any] = json.loads(said)
        return report


@dataclass(frozen=True, slots=True, eq=False)
class PermissiveRun:
    """What `memrt run` reported, what the double saw, and the verdict over every commanded millisecond."""

    report: dict[str, Any]
    double: dict[str, Any]
    verdict: Verdict


def run_permissive(
    policy: str, seed: int, seconds: float, *, options: Sequence[str] = (), task: str = "PickXtimes"
) -> PermissiveRun:
    """A policy at the permissive double's table until its task is decided, or for `seconds`."""
    host = own_loopback(1)
    with tempfile.TemporaryDirectory(prefix="memrt-run-") as folder:
        log = Path(folder) / "log.npz"
        with FrankyDoubleProcess(host, task=task, seed=seed, log=log) as double:
            robot = _robot(Path(folder), double.rings)
            about = double.ask() or {}
            goal = ["--goal", about.get("goal", task)]
            chosen = ["--robot", str(robot), "--host", host, "--task", task, "--policy", policy, "--seed", str(seed)]
            run = MemrtRun([*chosen, *goal, "--duration", str(seconds), *options])
            decided_s = 0.0
            deadline_s = time.monotonic() + START_S + seconds
            while run.running and time.monotonic() < deadline_s:
                time.sleep(LOOK_S)
                about = double.ask() or about
                if about.get("outcome", "running") != "running":
                    decided_s = decided_s or time.monotonic()
                    if time.monotonic() > decided_s + AFTERWARDS_S:
                        break
            report = run.end()
            seen = double.close()
        return PermissiveRun(report, seen, judge(CommandLog.load(log)))


@dataclass(frozen=True, slots=True, eq=False)
class StrictRun:
    """What `memrt run` reported, and what the strict double aborted meanwhile."""

    report: dict[str, Any]
    aborts: list[Abort]
    warnings: list[str]


def run_strict(seed: int, seconds: float) -> StrictRun:
    """50 Hz chunks that go nowhere in particular, against the strict double, for `seconds`."""
    host = own_loopback(2)
    with (
        tempfile.TemporaryDirectory(prefix="memrt-run-") as folder,
        StrictDoubleProcess(host) as strict,
        _card() as ring,
    ):
        robot = _robot(Path(folder), dict.fromkeys(("front", "wrist"), ring), CARD)
        chosen = ["--robot", str(robot), "--host", host, "--policy", "wander", "--seed", str(seed)]
        run = MemrtRun([*chosen, "--goal", "go nowhere in particular", "--duration", str(seconds)])
        deadline_s = time.monotonic() + START_S + seconds
        while run.running and time.monotonic() < deadline_s:
            time.sleep(LOOK_S)
        return StrictRun(run.end(), strict.aborts, strict.warnings)


def _robot(folder: Path, rings: Mapping[str, str], size: tuple[int, ...] = (256, 256)) -> Path:
    """The packaged robot, with these rings as its cameras."""
    path = packaged_file("robots", ROBOT, what="robot", file="a robot YAML")
    values = yaml.safe_load(path.read_text())
    for camera, ring in rings.items():
        values["cameras"][camera] |= {"name": ring, "height": size[0], "width": size[1]}
    mine = folder / "robot.yaml"
    mine.write_text(yaml.safe_dump(values))
    load_robot(mine)
    return mine


class _Card:
    """A picture that changes, 20 times per second: the strict double has no cameras, and policies wait for theirs."""

    def __init__(self, name: str) -> None:
        self._ring = FrameRing.create(name, 8, *CARD)
        self._quit = threading.Event()
        self._thread = threading.Thread(target=self._run, name="test card", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        index = 0
        while not self._quit.wait(0.05):
            index += 1
            self._ring.write(np.full(CARD, index % 251, np.uint8), index, time.monotonic_ns())

    def close(self) -> None:
        self._quit.set()
        self._thread.join()
        self._ring.close()


@contextlib.contextmanager
def _card() -> Iterator[str]:
    name = f"memrt-{os.getpid()}-card"
    card = _Card(name)
    try:
        yield name
    finally:
        card.close()
