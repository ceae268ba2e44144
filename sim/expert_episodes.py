"""Undisturbed episodes of the scripted expert: how often it succeeds, and what there is to see on the way."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from memrt.runtime.statistics import median, wilson95
from memrt.runtime.types import ActionChunk
from memrt.runtime.video import FPS, VideoWriter
from memrt.sim.env import CONTROL_DT_NS, TabletopEnv
from memrt.sim.expert import Expert
from memrt.sim.record import HIGH_LEVEL_EVERY
from memrt.sim.tasks.base import DIFFICULTIES, Difficulty, Outcome

REPLAN_EVERY = 8  # control steps


@dataclass(frozen=True, slots=True)
class Spoken:
    """The subgoal that the expert follows, as the last high-level call gave it, in both styles."""

    simple: str
    grounded: str


@dataclass(frozen=True, slots=True)
class ExpertEpisode:
    """How one seed ended."""

    seed: int
    difficulty: Difficulty
    success: bool
    reason: str
    steps: int


def follow_expert(env: TabletopEnv, each: Callable[[Spoken], None] = lambda spoken: None) -> Outcome:
    """Let the expert solve the episode; `each` is called before every control step, with the subgoal it follows.

    The expert is called as a policy is: the subgoal changes at high-level calls only, chunks are replanned as they are
    executed.
    """
    expert = Expert(env)
    env.arm()
    while not env.outcome.ended:
        if env.step_index % HIGH_LEVEL_EVERY == 0:
            step = env.task.step
            spoken = Spoken(env.oracle_subgoal("simple"), env.oracle_subgoal("grounded"))
        if env.step_index % REPLAN_EVERY == 0:
            env.send(ActionChunk(expert.chunk(step), env.t_ns + CONTROL_DT_NS, CONTROL_DT_NS, 0))
        each(spoken)
        env.advance(1)
    return env.outcome


def show_episode(task: str, seed: int, difficulty: Difficulty | None, video: Path | None) -> dict[str, Any]:
    """Run one episode, as an MP4 of the front camera if `video` is given; what happened, as plain JSON."""
    said: list[str] = []
    with TabletopEnv(task, seed, difficulty) as env:
        if video is None:
            outcome = follow_expert(env, lambda spoken: said.append(spoken.simple))
        else:
            with VideoWriter(video) as writer:

                def add(spoken: Spoken, note: str = "") -> None:
                    said.append(spoken.simple)
                    about = f"{task}, seed {seed}, {env.task.difficulty}, control step {env.step_index}{note}"
                    writer.add(env.render("front"), [("goal", env.goal), ("subgoal", spoken.grounded), ("task", about)])

                outcome = follow_expert(env, add)
                for _ in range(FPS):  # the end stays in view for a second
                    add(Spoken(said[-1], said[-1]), f": {outcome.status}, {outcome.reason}")
        return {
            "task": task,
            "seed": seed,
            "difficulty": env.task.difficulty,
            "goal": env.goal,
            "subgoals": [text for text, _ in groupby(said)],
            "success": outcome.status == "success",
            "reason": outcome.reason,
            "steps": env.step_index,
        }


def expert_rates(
    task: str,
    seeds: Sequence[int],
    difficulties: Sequence[Difficulty] = DIFFICULTIES,
    *,
    workers: int = 1,
    on_episode: Callable[[ExpertEpisode], None] = lambda episode: None,
) -> dict[str, Any]:
    """Run the expert on all seeds in each difficulty; the result is plain JSON and does not depend on `workers`."""
    episodes: list[ExpertEpisode] = []
    for episode in _episodes(task, [(seed, difficulty) for difficulty in difficulties for seed in seeds], workers):
        episodes.append(episode)
        on_episode(episode)
    return {
        "task": task,
        "policy": "scripted expert",
        **_rate(episodes),
        "by_difficulty": {d: _rate([e for e in episodes if e.difficulty == d]) for d in difficulties},
        "failures": dict(Counter(episode.reason for episode in episodes if not episode.success)),
        "failed_seeds": [[episode.difficulty, episode.seed] for episode in episodes if not episode.success],
        "seeds": [min(seeds), max(seeds)],
        "versions": {name: version(name) for name in ("memrt", "mujoco", "numpy")},
        "hardware": {"machine": platform.machine()},
    }


def _rate(episodes: Sequence[ExpertEpisode]) -> dict[str, Any]:
    successes = sum(episode.success for episode in episodes)
    return {
        "episodes": len(episodes),
        "success_rate": successes / len(episodes),
        "wilson95": list(wilson95(successes, len(episodes))),
        "median_steps": median([float(episode.steps) for episode in episodes]),
        "most_steps": max(episode.steps for episode in episodes),
    }


def _episodes(task: str, cases: Sequence[tuple[int, Difficulty]], workers: int) -> Iterator[ExpertEpisode]:
    if workers <= 1:
        yield from map(partial(_episode, task), cases)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(partial(_episode, task), cases)


def _episode(task: str, case: tuple[int, Difficulty]) -> ExpertEpisode:
    seed, difficulty = case
    with TabletopEnv(task, seed, difficulty) as env:
        outcome = follow_expert(env)
        return ExpertEpisode(seed, difficulty, outcome.status == "success", outcome.reason, env.step_index)
