"""Processes of this computer that play episodes: one that dies takes its episode along, and nothing else.

The standard library's pool gives up as a whole when one of its processes dies.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from memrt.sim.suite.work import Crash, Done, Job

EPISODE_DEADLINE_S = 3600.0  # 1300 steps take a minute on a laptop; what takes this long hangs
END_S = 5.0  # how long a process may take to end when it is told to
# One thread each, the software renderer's included; episodes run beside each other instead.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LP_NUM_THREADS": "1"}

MakeWork = Callable[[], Callable[[Job], Done]]


class LocalWorkers:
    """`count` processes, each with its own `make_work()`; implements `Executor`."""

    def __init__(self, count: int, make_work: MakeWork, *, deadline_s: float = EPISODE_DEADLINE_S) -> None:
        self._count, self._make_work, self._deadline_s = count, make_work, deadline_s

    def run(self, jobs: deque[Job]) -> Generator[tuple[Job, Done | Crash], None, None]:
        """Play the jobs; see `Executor`."""
        workers = [_Worker(self._make_work) for _ in range(min(self._count, len(jobs)))]
        try:
            while jobs or any(worker.job for worker in workers):
                for worker in workers:
                    if worker.job is None and jobs:
                        worker.begin(jobs.popleft())
                wait([worker.answers for worker in workers if worker.job], timeout=1.0)
                for index, worker in enumerate(workers):
                    finished = worker.look(self._deadline_s)
                    if finished is None:
                        continue
                    if not worker.alive:
                        workers[index] = _Worker(self._make_work)
                    yield finished
        finally:
            for worker in workers:
                worker.end()


class _Worker:
    def __init__(self, make_work: MakeWork) -> None:
        context = get_context("spawn")
        self.answers, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(target=_serve, args=(theirs, make_work), daemon=True)
        before = {name: os.environ.get(name) for name in ONE_THREAD}
        os.environ.update(ONE_THREAD)  # libraries read these as they are loaded, before any of our code
        try:
            self._process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
        theirs.close()
        self.job: Job | None = None
        self.alive = True
        self._began_s = 0.0

    def begin(self, job: Job) -> None:
        self.job, self._began_s = job, time.monotonic()
        with contextlib.suppress(OSError):  # it died at its start: `look` finds out
            self.answers.send(job)

    def look(self, deadline_s: float) -> tuple[Job, Done | Crash] | None:
        """The job's end, if it has come."""
        if self.job is None:
            return None
        job = self.job
        try:
            if self.answers.poll():
                self.job = None
                return job, self.answers.recv()
        except (EOFError, OSError):
            return job, self._died(f"its process died ({self._last_words()})")
        if time.monotonic() > self._began_s + deadline_s:
            return job, self._died(f"not over after {deadline_s:g} s")
        return None

    def _died(self, why: str) -> Crash:
        self.job, self.alive = None, False
        self.end()
        return Crash(why)

    def _last_words(self) -> str:
        self._process.join(END_S)
        code = self._process.exitcode
        if code is None:
            return "no exit status"
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"

    def end(self) -> None:
        self.answers.close()  # a process between two episodes ends by itself
        self._process.terminate()
        self._process.join(END_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(jobs: Connection, make_work: MakeWork) -> None:
    """A worker's life: Ctrl-C is its parent's affair; without a parent it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work = make_work()
    while True:
        try:
            job = jobs.recv()
        except EOFError:
            return
        try:
            answer: Done | Crash = work(job)
        except Exception as error:
            answer = Crash("".join(traceback.format_exception_only(error)).strip())
        try:
            jobs.send(answer)
        except OSError:
            return
