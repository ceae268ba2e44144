"""Plays stored episodes once more and compares: results are worth what can be played again."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from memrt.runtime.loop.settings import EPISODE_CAP_STEPS
from memrt.sim.suite.candidates import Candidate
from memrt.sim.suite.cells import Episode
from memrt.sim.suite.sweep import CellPlan
from memrt.sim.suite.work import Crash, Executor, Job


def chosen(plans: Sequence[CellPlan], cells: int, episodes: int | None, seed: int) -> list[tuple[CellPlan, list[int]]]:
    """`cells` lock-step cells picked at random by `seed`, with all or `episodes` of their stored seeds."""
    rng = random.Random(seed)
    able = [
        plan
        for plan in sorted(plans, key=lambda plan: plan.cell)
        if plan.episodes and plan.cell.mode == "lockstep" and isinstance(plan.candidate, Candidate)
    ]
    picked = rng.sample(able, min(cells, len(able)))
    return [
        (plan, sorted(rng.sample(sorted(plan.episodes), min(episodes or len(plan.episodes), len(plan.episodes)))))
        for plan in picked
    ]


def verify(
    picked: Sequence[tuple[CellPlan, Sequence[int]]],
    executor: Executor,
    *,
    on_episode: Callable[[CellPlan, Episode, bool], None],
    cap_steps: int = EPISODE_CAP_STEPS,
) -> dict[str, Any]:
    """Play them again; plain JSON. Nothing is stored.

    An episode is `identical` when every action was, bit for bit, and the outcome `same` when success, reason and
    steps are: another kind of processor may round a product otherwise.
    """
    stored = {(plan.cell, seed): plan for plan, seeds in picked for seed in seeds}
    jobs = deque(
        Job(plan.cell, plan.candidate, seed, cap_steps)
        for plan, seeds in picked
        for seed in seeds
        if isinstance(plan.candidate, Candidate)
    )
    identical, same, differing = 0, 0, []
    with closing(executor.run(jobs)) as answers:
        for job, answer in answers:
            plan = stored[job.cell, job.seed]
            if isinstance(answer, Crash):
                differing.append({"cell": str(job.cell), "seed": job.seed, "stored": None, "again": answer.why})
                continue
            before, again = plan.episodes[job.seed], answer.episode
            agrees = before.outcome == again.outcome
            same += agrees
            identical += before.actions_sha256 == again.actions_sha256 and agrees
            if not agrees:
                rows = {"stored": list(before.outcome), "again": list(again.outcome)}
                differing.append({"cell": str(job.cell), "seed": job.seed, **rows})
            on_episode(plan, again, agrees)
    return {
        "cells": [str(plan.cell) for plan, _ in picked],
        "episodes": len(stored),
        "same_outcome": same,
        "identical_actions": identical,
        "differing": differing,
    }
