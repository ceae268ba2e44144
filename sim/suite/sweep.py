"""Plays what is missing: plans cells against what is stored, hands episodes to an executor, stores each as it ends."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.settings import EPISODE_CAP_STEPS
from memrt.sim.suite.candidates import Candidate, find_candidate
from memrt.sim.suite.cells import SUITE_POLICIES, SUITE_TASKS, Cell, Episode, Settings
from memrt.sim.suite.results import CellWriter, cell_file, read_cell, stored_cells
from memrt.sim.suite.work import Done, Executor, Job

ATTEMPTS = 2  # of an episode whose worker died
SHOWN = 3  # changed cells in a refusal


@dataclass(slots=True)
class CellPlan:
    """A cell, what plays it (or why nothing does), its seeds, and the episodes there are so far, by seed."""

    cell: Cell
    candidate: Candidate | str
    seeds: Sequence[int]
    settings: Settings | None = None
    episodes: dict[int, Episode] = field(default_factory=dict)
    by: list[dict[str, Any]] = field(default_factory=list)
    crashes: dict[int, str] = field(default_factory=dict)

    @property
    def missing(self) -> list[int]:
        """Seeds still to be played."""
        if isinstance(self.candidate, str):
            return []
        return [seed for seed in self.seeds if seed not in self.episodes]


class Watcher(Protocol):
    """Hears what happens during a sweep."""

    def episode(self, plan: CellPlan, episode: Episode) -> None:
        """One more is stored."""
        ...

    def crash(self, plan: CellPlan, seed: int, why: str, again: bool) -> None:
        """An episode was lost; `again` says whether it is tried once more."""
        ...


def plan_cells(
    cells: Sequence[Cell],
    seeds: Sequence[int],
    *,
    results: Path,
    bundles: Path,
    replace: bool = False,
    cap_steps: int = EPISODE_CAP_STEPS,
) -> list[CellPlan]:
    """What there is to play and what is stored. Raises MemrtError where stored episodes came of other settings.

    `replace` lets such a cell begin anew instead.
    """
    found: dict[tuple[str, str, str], Candidate | str] = {}
    plans, changed = [], []
    for cell in cells:
        which = (cell.policy, cell.precision, cell.mode)
        if which not in found:
            found[which] = find_candidate(cell.policy, cell.precision, cell.mode, bundles)
        candidate = found[which]
        plan = CellPlan(cell, candidate, seeds)
        plans.append(plan)
        if isinstance(candidate, str):
            continue
        plan.settings = candidate.settings(cell, cap_steps)
        stored = read_cell(cell_file(results, cell))
        if stored is not None and stored.settings == plan.settings:
            plan.episodes = {seed: stored.episodes[seed] for seed in seeds if seed in stored.episodes}
            plan.by = list(stored.by)
        elif stored is not None and stored.episodes and not replace:
            changed.append(f"{cell}: {_difference(stored.settings, plan.settings)}")
    if changed:
        more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
        raise MemrtError(
            f"stored results in {results}",
            expected="episodes of the same bundles and settings",
            found="; ".join(changed[:SHOWN]) + more,
            fix="add --replace to begin these cells anew, or give another --results folder",
        )
    return plans


def stored_plans(results: Path) -> list[CellPlan]:
    """Every cell that a folder holds episodes of, in the suite's order; nothing is to be played."""
    order = {name: index for index, name in enumerate((*SUITE_TASKS, *SUITE_POLICIES))}
    return [
        CellPlan(cell, "stored", sorted(stored.episodes), stored.settings, dict(stored.episodes), list(stored.by))
        for cell, stored in sorted(
            stored_cells(results).items(),
            key=lambda item: (
                item[0].mode,
                item[0].precision == "fp32",
                order.get(item[0].policy, len(order)),
                order.get(item[0].task, len(order)),
            ),
        )
    ]


def play(
    plans: Sequence[CellPlan],
    executor: Executor,
    *,
    results: Path,
    watcher: Watcher,
    cap_steps: int = EPISODE_CAP_STEPS,
) -> None:
    """Play every missing episode of `plans` and store it. Whatever ends this early, what is stored stays."""
    by_cell = {plan.cell: plan for plan in plans}
    jobs = deque(
        Job(plan.cell, plan.candidate, seed, cap_steps)
        for plan in sorted(plans, key=lambda plan: (plan.cell.policy, plan.cell.precision))  # engines stay open
        if isinstance(plan.candidate, Candidate)
        for seed in plan.missing
    )
    tried: Counter[tuple[Cell, int]] = Counter()
    with ExitStack() as stack:
        writers = {
            plan.cell: stack.enter_context(
                CellWriter(cell_file(results, plan.cell), plan.candidate.settings(plan.cell, cap_steps))
            )
            for plan in plans
            if isinstance(plan.candidate, Candidate) and plan.missing
        }
        for job, answer in stack.enter_context(closing(executor.run(jobs))):
            plan = by_cell[job.cell]
            if isinstance(answer, Done):
                writers[job.cell].add(answer.episode, answer.by)
                plan.episodes[job.seed] = answer.episode
                if answer.by not in plan.by:
                    plan.by.append(answer.by)
                watcher.episode(plan, answer.episode)
                continue
            tried[job.cell, job.seed] += 1
            again = tried[job.cell, job.seed] < ATTEMPTS
            if again:
                jobs.append(job)
            else:
                plan.crashes[job.seed] = answer.why
            watcher.crash(plan, job.seed, answer.why, again)


def _difference(stored: Settings, wanted: Settings) -> str:
    """The first setting that differs, in a few words."""
    for name in ("bundle_sha256", "bundle", "borrowed", "cap_steps"):
        was, now = getattr(stored, name), getattr(wanted, name)
        if was != now:
            return f"{name} was {_short(was)}, is {_short(now)}"
    return "it is another cell's file"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 16 else f"{text[:12]}…"
