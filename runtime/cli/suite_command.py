"""`memrt eval --suite memory`: every task by every policy, resumable, and the table that comes of it."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import typer
from rich.console import Console

from memrt.runtime.cli.default_bundle import reference_bundles
from memrt.runtime.cli.extras import needs_extra
from memrt.runtime.cli.suite_display import SuiteDisplay, rate_tables
from memrt.runtime.errors import MemrtError

INCOMPLETE = 1  # exit status: episodes were lost, or played otherwise than stored
INTERRUPTED = 130  # as a shell reports Ctrl-C
MOST_SEEDS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteOptions:
    """The command's options; None for the suite's own choice."""

    suite: str
    policies: str | None
    tasks: str | None
    seeds: Sequence[int]
    precisions: Sequence[str]
    real_time: bool
    results: Path
    bundles: Path | None
    jobs: int | None
    on: str | None
    stored: bool
    replace: bool
    verify: int | None
    verify_episodes: int | None
    verify_seed: int
    markdown: Path | None
    plot: Path | None
    as_json: bool


def run_suite(options: SuiteOptions) -> None:
    """Play what is missing, or only report or verify what is stored. Raises typer.Exit where the status is not 0."""
    _check(options)
    with needs_extra("sim", "cpu"):
        from memrt.sim.suite.sweep import plan_cells, stored_plans

    if options.stored:
        chosen = _cells(options) if options.policies or options.tasks else None
        plans = [plan for plan in stored_plans(options.results) if chosen is None or _same(plan.cell, chosen)]
        if not plans:
            raise MemrtError(
                f"--stored with results in {options.results}",
                expected="episodes that were played earlier",
                found="none",
                fix="leave --stored out to play them, or give another --results folder",
            )
        _report(options, plans, {})
        return
    plans = plan_cells(
        _cells(options),
        options.seeds,
        results=options.results,
        bundles=options.bundles or reference_bundles(),
        replace=options.replace,
    )
    if options.verify is not None:
        _verify(options, plans)
        return
    interrupted = _play(options, plans)
    _report(options, plans, {"interrupted": interrupted})
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if any(plan.crashes for plan in plans):
        raise typer.Exit(INCOMPLETE)


def parse_seeds(text: str) -> list[int]:
    """`1000000-1000049,1000100`: seeds and ranges of them, both ends included. Raises MemrtError for anything else."""
    seeds: dict[int, None] = {}
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            span = range(int(first), int(last if dash else first) + 1)
            if span.start < 0 or not span or len(span) + len(seeds) > MOST_SEEDS:
                raise ValueError
            seeds |= dict.fromkeys(span)
    except ValueError:
        raise MemrtError(
            "--seeds",
            expected=f"at most {MOST_SEEDS} seeds and ranges from 0, such as 1000000-1000049,1000100",
            found=text,
            fix="correct it, or give --episodes and --seed-start",
        ) from None
    return list(seeds)


def _check(options: SuiteOptions) -> None:
    if options.suite != "memory":
        raise MemrtError("--suite", expected="`memory`", found=f"`{options.suite}`", fix="give --suite memory")
    if options.plot is not None and options.plot.suffix != ".svg":
        raise MemrtError(
            "--plot", expected="a file that ends in .svg", found=options.plot, fix="name it .svg; browsers show it"
        )
    for path in (options.markdown, options.plot):
        if path is not None and not path.absolute().parent.is_dir():
            raise MemrtError(
                f"output {path}", expected="a folder that exists", found="none", fix="create it, or correct the path"
            )
    if options.on is not None and options.on.partition(":")[0] != "ray":
        raise MemrtError("--on", expected="ray or ray:ADDRESS", found=options.on, fix="leave it out to play here")
    if options.on is not None and options.real_time:
        raise MemrtError(
            "--on ray with --real-time",
            expected="one of both",
            found="both",
            fix="play real time on the computer that is to be measured",
        )


def _cells(options: SuiteOptions) -> list[Any]:
    from memrt.sim.suite.cells import SUITE_POLICIES, SUITE_TASKS, Cell, Mode
    from memrt.sim.tasks import make_task

    tasks = options.tasks.split(",") if options.tasks else SUITE_TASKS
    policies = options.policies.split(",") if options.policies else SUITE_POLICIES
    for task in tasks:
        make_task(task, 0)  # refuses an unknown one
    if paths := [policy for policy in policies if "/" in policy]:
        raise MemrtError(
            "--policies",
            expected="names: of packaged policies, or of bundles POLICY-PRECISION in the folder --bundles",
            found=paths[0],
            fix="export it into a folder, and give its name and --bundles FOLDER",
        )
    mode: Mode = "realtime" if options.real_time else "lockstep"
    return [
        Cell(task, policy, precision, mode)
        for precision in options.precisions
        for policy in dict.fromkeys(policies)
        for task in dict.fromkeys(tasks)
    ]


def _same(cell: Any, chosen: Sequence[Any]) -> bool:
    """Whether a stored cell is of a chosen task and policy, whatever its precision and mode."""
    return (cell.task, cell.policy) in {(other.task, other.policy) for other in chosen}


def _executor(options: SuiteOptions) -> tuple[Any, int]:
    """What plays, and how many episodes at a time."""
    from memrt.sim.suite.local_workers import LocalWorkers
    from memrt.sim.suite.realtime_runs import RealtimeRuns
    from memrt.sim.suite.work import LockstepWork

    if options.real_time:
        return RealtimeRuns(), 1
    if options.on is not None:
        from memrt.sim.suite.ray_workers import RayWorkers

        workers = RayWorkers(options.on.partition(":")[2] or None, options.jobs)
        return workers, workers.count
    return LocalWorkers(options.jobs or 1, LockstepWork), options.jobs or 1


def _play(options: SuiteOptions, plans: Sequence[Any]) -> bool:
    """Play what is missing; whether it was interrupted."""
    from memrt.sim.suite.sweep import play

    missing = sum(len(plan.missing) for plan in plans)
    if not missing:
        return False
    executor, jobs = _executor(options)
    before = signal.signal(signal.SIGTERM, _interrupt)  # a job scheduler's way to say Ctrl-C
    try:
        with SuiteDisplay(plans, jobs) as display:
            there = sum(len(plan.episodes) for plan in plans)
            display.note(f"{missing} episodes to play, {there} are stored already")
            play(plans, executor, results=options.results, watcher=display)
    except KeyboardInterrupt:
        return True
    finally:
        signal.signal(signal.SIGTERM, before)
    return False


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _verify(options: SuiteOptions, plans: Sequence[Any]) -> None:
    from memrt.sim.suite.verify import chosen, verify

    picked = chosen(plans, options.verify or 0, options.verify_episodes, options.verify_seed)
    if not picked:
        raise MemrtError(
            "--verify",
            expected="stored lock-step cells of bundles that are here",
            found="none",
            fix="play some first: leave --verify out",
        )
    executor, _ = _executor(options)

    def tell(plan: Any, episode: Any, agrees: bool) -> None:
        mark = "as stored" if agrees else "NOT as stored"
        typer.echo(f"{plan.cell}, seed {episode.seed}: {mark}, {episode.reason}", err=True)

    verdict = verify(picked, executor, on_episode=tell)
    if options.as_json:
        typer.echo(json.dumps({"suite": "memory", "verified": verdict}, allow_nan=False))
    else:
        typer.echo(
            f"{verdict['same_outcome']} of {verdict['episodes']} episodes of {len(picked)} cells ended as stored, "
            f"{verdict['identical_actions']} with the same actions bit for bit"
        )
    if verdict["differing"]:
        raise typer.Exit(INCOMPLETE)


def _report(options: SuiteOptions, plans: Sequence[Any], more: dict[str, Any]) -> None:
    from memrt.sim.suite.markdown import markdown
    from memrt.sim.suite.plot import suite_svg
    from memrt.sim.suite.report import suite_report

    report = suite_report(plans) | more
    if options.markdown is not None:
        options.markdown.write_text(markdown(report), encoding="utf-8")
    if options.plot is not None:
        options.plot.write_text(suite_svg(report), encoding="utf-8")
    if options.as_json:
        typer.echo(json.dumps(report, allow_nan=False))
        return
    console = Console()
    for table in rate_tables(plans):
        console.print(table)
    if more.get("interrupted"):
        console.print("Interrupted: the same command goes on with what is missing.")
    for why in dict.fromkeys(cell["why"] for cell in report["cells"] if "why" in cell):
        who = dict.fromkeys(cell["policy"] for cell in report["cells"] if cell.get("why") == why)
        console.print(f"{', '.join(who)}: {why}", markup=False, highlight=False)
