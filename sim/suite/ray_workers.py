"""Ray's actors play episodes on all computers of a cluster: `memrt eval --suite memory --on ray[:address]`.

Every computer needs memrt with the extras `cpu,sim,ray`, and the bundles at the same path; an actor that finds other
bundles there says so instead of playing.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Generator
from typing import Any

from memrt.runtime.errors import MemrtError
from memrt.sim.suite.local_workers import ONE_THREAD
from memrt.sim.suite.work import Crash, Done, Job, LockstepWork


class RayWorkers:
    """`count` actors with one core each, by default as many as the cluster has cores; implements `Executor`."""

    def __init__(self, address: str | None, count: int | None = None) -> None:
        """Join the cluster at `address`, or begin one on this computer. Raises MemrtError without Ray or a cluster."""
        try:
            import ray
        except ModuleNotFoundError as error:
            raise MemrtError(
                "--on ray",
                expected="the package `ray`",
                found="an installation without it",
                fix="pip install 'memrt[ray]' here and on the cluster's computers, or use --jobs on this computer",
            ) from error
        self._ray: Any = ray
        try:
            ray.init(
                address=address,
                ignore_reinit_error=True,
                log_to_driver=False,
                include_dashboard=False if address is None else None,
                runtime_env={"env_vars": ONE_THREAD},
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise MemrtError(
                f"--on ray:{address}",
                expected="a Ray cluster",
                found=str(error).strip().splitlines()[0],
                fix="start one with `ray start --head`, or use --on ray for one on this computer",
            ) from error
        self.count = count or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._actor_class = ray.remote(num_cpus=1)(_Player)

    def run(self, jobs: deque[Job]) -> Generator[tuple[Job, Done | Crash], None, None]:
        """Play the jobs; see `Executor`."""
        ray = self._ray
        idle = [self._actor_class.remote() for _ in range(min(self.count, len(jobs)))]
        playing: dict[Any, tuple[Job, Any]] = {}
        try:
            while jobs or playing:
                while jobs and idle:
                    job, actor = jobs.popleft(), idle.pop()
                    playing[actor.play.remote(job)] = job, actor
                finished, _ = ray.wait(list(playing), timeout=1.0)
                for reference in finished:
                    job, actor = playing.pop(reference)
                    answer: Done | Crash
                    try:
                        answer = ray.get(reference)
                        idle.append(actor)
                    except ray.exceptions.RayError as error:
                        answer = Crash(f"its actor died ({type(error).__name__})")
                        idle.append(self._actor_class.remote())
                    yield job, answer
        finally:
            for actor in [*idle, *(actor for _, actor in playing.values())]:
                ray.kill(actor)
            ray.shutdown()


class _Player:
    def __init__(self) -> None:
        self._work = LockstepWork()

    def play(self, job: Job) -> Done | Crash:
        try:
            return self._work(job)
        except Exception as error:
            return Crash("".join(traceback.format_exception_only(error)).strip())
