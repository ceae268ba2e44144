"""One episode as a piece of work, which any process of any computer with the same bundles can do."""

from __future__ import annotations

import platform
from collections import deque
from collections.abc import Generator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Protocol

from memrt.runtime.bench.hardware import hardware
from memrt.runtime.bundle import load_bundle
from memrt.runtime.device_engines import this_device
from memrt.sim.episode_player import EpisodePlayer
from memrt.sim.suite.candidates import Candidate
from memrt.sim.suite.cells import Cell, Episode


@dataclass(frozen=True, slots=True)
class Job:
    """One episode to play."""

    cell: Cell
    candidate: Candidate
    seed: int
    cap_steps: int


@dataclass(frozen=True, slots=True)
class Done:
    """An episode played; `by` are the versions and the hardware that played it."""

    episode: Episode
    by: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Crash:
    """An episode that was not played to its end, and why."""

    why: str


class Executor(Protocol):
    """Plays jobs somewhere, in any order, several at a time."""

    def run(self, jobs: deque[Job]) -> Generator[tuple[Job, Done | Crash], None, None]:
        """Take jobs from the left until none is left and none is under way; more may be put in meanwhile.

        Closing the iterator ends everything that is under way.
        """
        ...


class LockstepWork:
    """Plays jobs in lock-step, in this process. The last policy stays open: jobs come policy by policy."""

    def __init__(self) -> None:
        self._candidate: Candidate | None = None
        self._player: EpisodePlayer | None = None
        self._by: dict[str, Any] = {}

    def __call__(self, job: Job) -> Done:
        """Play one."""
        if self._player is None or self._candidate != job.candidate:
            self._player = None  # its engines go before the next ones come
            self._player, self._candidate = job.candidate.open(), job.candidate
            self._by = played_by(job.candidate)
        result = self._player.play(job.cell.task, job.seed, job.cap_steps)
        rounded = {name: round(value, 4) for name, value in asdict(result).items() if isinstance(value, float)}
        return Done(episode(job.candidate, **(asdict(result) | rounded)), self._by)


def episode(candidate: Candidate, **values: Any) -> Episode:
    """What is kept of an episode of `candidate`."""
    return Episode(**values, bundle=candidate.bundle_digits, memrt=version("memrt"))


def played_by(candidate: Candidate) -> dict[str, Any]:
    """Versions and hardware, as plain JSON."""
    by: dict[str, Any] = {name: version(name) for name in ("memrt", "mujoco", "numpy")}
    if candidate.folder is not None:
        device = this_device(load_bundle(candidate.folder, verify=False))
        by |= {device.backend: device.version, "device": "cpu" if device.sm is None else device.name}
    return by | {"machine": platform.machine(), "processor": hardware()["cpu"]}
