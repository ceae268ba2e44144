"""Small pieces for the tests of the memory suite: cells, episodes, executors in this process, workers that die."""

import os
import signal
from collections import deque
from pathlib import Path

from memrt.runtime.loop.settings import EPISODE_CAP_STEPS
from memrt.sim.suite.candidates import find_candidate
from memrt.sim.suite.cells import Cell, Episode
from memrt.sim.suite.results import CellWriter, cell_file
from memrt.sim.suite.work import Crash, Done, Job, LockstepWork

BY = {"memrt": "0.1.0", "mujoco": "3.2.0", "machine": "x86_64", "processor": "a processor"}
NOWHERE = Path("/no/bundles")


def make_episode(seed: int, success: bool = True, **changes) -> Episode:
    values = {
        "seed": seed,
        "success": success,
        "status": "success" if success else "failure",
        "reason": "placed once" if success else "pressed too early",
        "steps": 100 + seed,
        "progress": 1.0 if success else 0.5,
        "difficulty": ("easy", "medium", "hard")[seed % 3],
        "repetitions": 1,
        "seconds": 2.0,
        "high_level_ms": 100.0,
        "low_level_ms": 17.0,
        "actions_sha256": f"{seed:064d}",
        "bundle": None,
        "memrt": "0.1.0",
    }
    return Episode(**(values | changes))


def expert_cell(task: str = "PickXtimes") -> Cell:
    return Cell(task, "expert", "int8", "lockstep")


def store_expert(results: Path, episodes, task: str = "PickXtimes", cap_steps: int = EPISODE_CAP_STEPS) -> Path:
    """Store made-up episodes of the scripted expert, as `memrt eval` would look for them."""
    cell = expert_cell(task)
    path = cell_file(results, cell)
    with CellWriter(path, find_candidate("expert", "int8", "lockstep", NOWHERE).settings(cell, cap_steps)) as writer:
        for episode in episodes:
            writer.add(episode, BY)
    return path


class InProcess:
    """Plays jobs one after the other, by `work`."""

    def __init__(self, work=None) -> None:
        self.work = work or LockstepWork()
        self.played: list[int] = []

    def run(self, jobs: deque[Job]):
        while jobs:
            job = jobs.popleft()
            self.played.append(job.seed)
            yield job, self.work(job)


class Silent:
    """Watches a sweep and does nothing about it."""

    def episode(self, plan, episode) -> None:
        """One more is stored."""

    def crash(self, plan, seed, why, again) -> None:
        """An episode was lost."""


class Dying:
    """Work of a process: seed 1 dies at its first attempt, seed 3 is always refused."""

    def __init__(self) -> None:
        self.flag = Path(os.environ["SUITE_TEST_FLAG"])

    def __call__(self, job: Job) -> Done:
        if job.seed == 1 and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if job.seed == 3:
            raise RuntimeError("not with me")
        return Done(make_episode(job.seed), BY)


class Losing:
    """Work in this process that loses an episode so many times."""

    def __init__(self, times: int) -> None:
        self.times = times

    def __call__(self, job: Job) -> Done | Crash:
        self.times -= 1
        return Crash("lost") if self.times >= 0 else Done(make_episode(job.seed), BY)
