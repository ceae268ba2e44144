"""Episodes in real time: each is one `memrt run`, the simulator a node of its own, paced by the wall clock."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from memrt.sim.suite.work import Crash, Done, Job, episode, played_by
from memrt.sim.tasks import make_task

MEMRT = (sys.executable, "-c", "from memrt.runtime.cli import main; main()")
DEADLINE_S = 600.0  # 1300 control steps of 50 ms are 65 s; loading takes seconds
END_S = 30.0  # how long a run may take to stop the arm when it is told to


class RealtimeRuns:
    """Plays one episode after the other, so that none takes another's processor time; implements `Executor`."""

    def __init__(self, command: Sequence[str] = MEMRT) -> None:
        self._command = command

    def run(self, jobs: deque[Job]) -> Generator[tuple[Job, Done | Crash], None, None]:
        """Play the jobs; see `Executor`."""
        while jobs:
            job = jobs.popleft()
            yield job, self._play(job)

    def _play(self, job: Job) -> Done | Crash:
        cell, candidate = job.cell, job.candidate
        chosen = ["--policy", cell.policy] if candidate.folder is None else ["--bundle", str(candidate.folder)]
        where = ["--robot", "sim", "--task", cell.task, "--seed", str(job.seed)]
        process = subprocess.Popen(
            [*self._command, "run", "--json", *where, *chosen],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches it through us
        )
        try:
            said, words = process.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            return Crash(f"memrt run was not over after {DEADLINE_S:g} s")
        finally:
            _end(process)
        try:
            report = json.loads(said)
        except json.JSONDecodeError:
            last = (words.strip().splitlines() or ["no word"])[-1]
            return Crash(f"memrt run gave no report, exit status {process.returncode}: {last}")
        return Done(episode(candidate, **told(job, report)), played_by(candidate))


def told(job: Job, report: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of the JSON report of `memrt run`. A task's progress does not cross a robot's link."""
    task = make_task(job.cell.task, job.seed)
    latency = report["latency_ms"]
    high, low = (latency.get(stage, {}).get("p50", 0.0) for stage in ("high level", "low level"))
    return {
        "seed": job.seed,
        "success": report["success"],
        "status": report["outcome"],
        "reason": report["reason"],
        "steps": report["steps"],
        "progress": None,
        "difficulty": task.difficulty,
        "repetitions": task.repetitions,
        "seconds": round(report["duration_s"], 4),
        "high_level_ms": round(high, 4),
        "low_level_ms": round(low, 4),
        "starved_ms": round(report["starved_ms"], 4),
        "actions_sha256": report["actions_sha256"],
    }


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)  # it stops the arm and its node
    try:
        process.communicate(timeout=END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
