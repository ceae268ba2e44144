"""`memrt eval`: run a policy over many seeds and report how often it succeeds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from memrt.runtime.bundle import load_bundle, require_halves
from memrt.runtime.cli.default_bundle import find_bundle
from memrt.runtime.cli.extras import needs_extra
from memrt.runtime.cli.suite_command import SuiteOptions, parse_seeds, run_suite
from memrt.runtime.errors import MemrtError

EVALUATION_SEEDS_START = 1_000_000  # recorded episodes count up from 0: no training seed is ever evaluated by default
SUITE = "The memory suite"  # a heading of --help


class Precision(str, Enum):
    """What the engines compute in."""

    INT8 = "int8"
    FP32 = "fp32"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("eval")(evaluate_policy)


def evaluate_policy(
    *,
    policy: Annotated[
        str | None, typer.Option(help="A packaged policy, or a policy YAML.", show_default="am_grounded")
    ] = None,
    task: Annotated[str | None, typer.Option(help="The memory task.", show_default="PickXtimes")] = None,
    robot: Annotated[str, typer.Option(help="Only the simulator knows whether it succeeded.")] = "sim",
    episodes: Annotated[int, typer.Option(min=1, help="Number of episodes, one seed each.")] = 50,
    seed_start: Annotated[int, typer.Option(min=0, help="First seed; the default is far from all training seeds.")] = (
        EVALUATION_SEEDS_START
    ),
    bundle: Annotated[
        Path | None, typer.Option(help="Bundle folder.", show_default="the policy's reference bundle")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="A second bundle on the same seeds: adds the paired difference.")
    ] = None,
    precision: Annotated[
        list[Precision] | None,
        typer.Option(
            help="Which reference bundle, when --bundle is not given; a suite takes several.", show_default="int8"
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "--workers", min=1, help="Processes; the outcome does not depend on it.", show_default="1"
        ),
    ] = None,
    lockstep: Annotated[
        bool, typer.Option("--lockstep", help="Simulated time waits for the policy: what eval does anyway.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
    suite: Annotated[
        str | None, typer.Option(help="`memory`: every task by every policy.", rich_help_panel=SUITE)
    ] = None,
    policies: Annotated[
        str | None, typer.Option(help="Policies, with commas.", show_default="all", rich_help_panel=SUITE)
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Tasks, with commas.", show_default="all", rich_help_panel=SUITE)
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            help="E.g. 1000000-1000049,1000100.", show_default="by --episodes, --seed-start", rich_help_panel=SUITE
        ),
    ] = None,
    real_time: Annotated[
        bool,
        typer.Option(
            "--real-time", help="Paced by the wall clock as a robot is, one at a time.", rich_help_panel=SUITE
        ),
    ] = False,
    results: Annotated[
        Path,
        typer.Option(help="Folder of the episodes stored; what is there is not played again.", rich_help_panel=SUITE),
    ] = Path("runs/memory-suite"),
    bundles: Annotated[
        Path | None,
        typer.Option(
            help="Folder of bundles named POLICY-PRECISION.",
            show_default="the reference bundles",
            rich_help_panel=SUITE,
        ),
    ] = None,
    on: Annotated[
        str | None, typer.Option(help="`ray` or `ray:ADDRESS`: play on a cluster.", rich_help_panel=SUITE)
    ] = None,
    stored: Annotated[
        bool, typer.Option("--stored", help="Play nothing, report all that is stored.", rich_help_panel=SUITE)
    ] = False,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Begin cells anew whose bundle or settings changed.", rich_help_panel=SUITE),
    ] = False,
    verify: Annotated[
        int | None,
        typer.Option(min=1, help="Play so many stored cells again and compare.", rich_help_panel=SUITE),
    ] = None,
    verify_episodes: Annotated[
        int | None,
        typer.Option(min=1, help="Of each such cell only so many.", show_default="all", rich_help_panel=SUITE),
    ] = None,
    verify_seed: Annotated[int, typer.Option(help="Picks them at random.", rich_help_panel=SUITE)] = 0,
    markdown: Annotated[Path | None, typer.Option(help="Write the table as Markdown.", rich_help_panel=SUITE)] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the table as an SVG picture.", rich_help_panel=SUITE)] = None,
) -> None:
    """Run a policy over many seeds and report how often it succeeds; or a whole suite of policies and tasks.

    Time stands still while the policy thinks, so the result is the same on every run.

    A suite stores each episode as it ends: interrupt it at any time, and call it again to go on.

    Examples:

        memrt eval --task PickXtimes --policy am_grounded --episodes 50

        memrt eval --policy memoryless --episodes 50 --jobs 2 --json > memoryless.json

        memrt eval --bundle my_bundle --against its_fp32_twin --episodes 50

        memrt eval --suite memory --jobs 2

        memrt eval --suite memory --policies am_grounded,memoryless --tasks PickXtimes,StopCube --episodes 30

        memrt eval --suite memory --stored --markdown table.md --plot table.svg
    """
    if robot != "sim":
        raise MemrtError(
            f"cannot evaluate on robot `{robot}`",
            expected="`sim`",
            found=f"`{robot}`",
            fix="use `memrt run` for other robots: only the simulator knows by itself whether it succeeded",
        )
    precisions = [each.value for each in dict.fromkeys(precision or [Precision.INT8])]
    range_of_seeds = range(seed_start, seed_start + episodes)
    if suite is not None:
        _refuse("--suite", {"--policy": policy, "--task": task, "--bundle": bundle, "--against": against})
        options = SuiteOptions(
            suite=suite,
            policies=policies,
            tasks=tasks,
            seeds=range_of_seeds if seeds is None else parse_seeds(seeds),
            precisions=precisions,
            real_time=real_time,
            results=results,
            bundles=bundles,
            jobs=jobs,
            on=on,
            stored=stored,
            replace=replace,
            verify=verify,
            verify_episodes=verify_episodes,
            verify_seed=verify_seed,
            markdown=markdown,
            plot=plot,
            as_json=as_json,
        )
        run_suite(options)
        return
    only_suites: dict[str, object] = {
        "--policies": policies,
        "--tasks": tasks,
        "--seeds": seeds,
        "--real-time": real_time,
        "--on": on,
    }
    only_suites |= {"--stored": stored, "--replace": replace, "--verify": verify, "--markdown": markdown}
    _refuse("without --suite memory", only_suites | {"--plot": plot})
    if len(precisions) > 1:
        raise MemrtError("--precision", expected="one", found=" and ".join(precisions), fix="add --suite memory")
    folder = find_bundle(bundle, policy, precisions[0])
    other_folder = None if against is None else find_bundle(against, None, precisions[0])
    for path in (folder, other_folder):
        if path is not None:
            require_halves(load_bundle(path, verify=False))
    with needs_extra("sim", "cpu"):
        from memrt.sim.evaluate import compare, evaluate

    task = task or "PickXtimes"
    report = evaluate(folder, task, range_of_seeds, workers=jobs or 1, on_episode=_print_episode)
    if other_folder is not None:
        other = evaluate(other_folder, task, range_of_seeds, workers=jobs or 1, on_episode=_print_episode)
        report = report | {"against": other, "paired_difference95": compare(report, other)}
    if as_json:
        typer.echo(json.dumps(report, allow_nan=False))
    else:
        Console().print(as_table(report))


def _refuse(where: str, options: Mapping[str, object]) -> None:
    """Raise MemrtError when an option was given that means nothing here."""
    given = [name for name, value in options.items() if value]
    if given:
        raise MemrtError(
            f"{given[0]} {where}",
            expected="the options of one policy, or those of a suite",
            found="both",
            fix="see `memrt eval --help`",
        )


def as_table(report: Mapping[str, Any]) -> Table:
    """One row per figure; nested figures are named by their path, lists of episodes are left out."""
    table = Table(title=f"{report.get('policy')} on {report.get('task')}", show_header=False)
    for name, value in _flat(report):
        table.add_row(name, value)
    return table


def _flat(report: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in report.items():
        name = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, Mapping):
            rows += _flat(value, f"{name}: ")
        elif not isinstance(value, list | tuple):
            rows.append((name, _figure(value)))
        elif all(isinstance(item, int | float) for item in value):
            rows.append((name, " .. ".join(_figure(item) for item in value)))
    return rows


def _figure(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _print_episode(result: Any) -> None:
    """Report a `memrt.sim.evaluate.EpisodeResult` on stderr, so that stdout holds the report alone."""
    mark = "success" if result.success else "failure"
    typer.echo(f"seed {result.seed}: {mark} after {result.steps} steps, {result.reason}", err=True)
