"""What is seen of a running sweep, on stderr: the table as it fills, or one line per episode without a terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

REFRESH_HZ = 2.0


class SuiteDisplay:
    """Watches a sweep (`memrt.sim.suite.sweep.Watcher`); a context manager."""

    def __init__(self, plans: Sequence[Any], jobs: int) -> None:
        """`plans` are the sweep's `CellPlan`s, which fill as it goes."""
        self._plans, self._jobs = plans, jobs
        self._console = Console(stderr=True)
        self._live: Live | None = None
        self._began_s = time.monotonic()
        self._total = sum(len(plan.missing) for plan in plans)
        self._played = 0

    def episode(self, plan: Any, episode: Any) -> None:
        """One more is stored."""
        self._played += 1
        if self._live is None:
            mark = "success" if episode.success else "failure"
            line = f"{plan.cell}, seed {episode.seed}: {mark} after {episode.steps} steps, {episode.reason}"
            self.note(f"[{self._played}/{self._total}] {line}")

    def crash(self, plan: Any, seed: int, why: str, again: bool) -> None:
        """An episode was lost."""
        then = "tried again" if again else "given up"
        self.note(f"{plan.cell}, seed {seed}: {why}; {then}", style="yellow")

    def note(self, text: str, style: str = "") -> None:
        """Say something, above the table where there is one."""
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> SuiteDisplay:
        if self._console.is_terminal:
            self._live = Live(
                console=self._console, get_renderable=self._render, refresh_per_second=REFRESH_HZ, transient=True
            )
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def _render(self) -> RenderableType:
        return Group(*rate_tables(self._plans), Text(self._pace(), style="dim"))

    def _pace(self) -> str:
        elapsed_s = time.monotonic() - self._began_s
        line = f"{self._played} of {self._total} episodes in {_duration(elapsed_s)}, {self._jobs} at a time"
        if self._played:
            left_s = elapsed_s / self._played * (self._total - self._played)
            line += f"; about {_duration(left_s)} to go"
        return f"{line}. Ctrl-C ends it; what is done is kept."


def rate_tables(plans: Sequence[Any]) -> list[Table]:
    """Policies by tasks, one table per precision and mode: successes of episodes played, or what is to come."""
    tables = []
    for precision, mode in dict.fromkeys((plan.cell.precision, plan.cell.mode) for plan in plans):
        ours = [plan for plan in plans if (plan.cell.precision, plan.cell.mode) == (precision, mode)]
        by = {(plan.cell.policy, plan.cell.task): plan for plan in ours}
        tasks = list(dict.fromkeys(plan.cell.task for plan in ours))
        table = Table(title=f"memory suite, {precision}, {'real time' if mode == 'realtime' else 'lock-step'}")
        table.add_column("policy")
        for task in tasks:
            table.add_column(task, justify="right")
        for policy in dict.fromkeys(plan.cell.policy for plan in ours):
            table.add_row(policy, *(_square(by.get((policy, task))) for task in tasks))
        tables.append(table)
    return tables


def _square(plan: Any) -> Text:
    if plan is None or (isinstance(plan.candidate, str) and not plan.episodes):
        return Text("–", style="dim")
    played = len(plan.episodes)
    if not played:
        return Text(f"0/{len(plan.seeds)}", style="dim")
    rate = sum(episode.success for episode in plan.episodes.values()) / played
    text = Text(f"{100 * rate:.0f} %", style="bold" if played == len(plan.seeds) else "")
    if played < len(plan.seeds):
        text.append(f" {played}/{len(plan.seeds)}", style="dim not bold")
    return text


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
