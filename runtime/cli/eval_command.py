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
from memrt.runtime.errors import MemrtError

EVALUATION_SEEDS_START = 1_000_000  # recorded episodes count up from 0: no training seed is ever evaluated by default


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
    task: Annotated[str, typer.Option(help="The memory task.")] = "PickXtimes",
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
    precision: Annotated[Precision, typer.Option(help="Which reference bundle, when --bundle is not given.")] = (
        Precision.INT8
    ),
    workers: Annotated[int, typer.Option(min=1, help="Processes; the outcome does not depend on it.")] = 1,
    lockstep: Annotated[
        bool, typer.Option("--lockstep", help="Simulated time waits for the policy: the only mode of eval.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Run a policy over many seeds and report how often it succeeds.

    Time stands still while the policy thinks, so the result is the same on every run.

    Examples:

        memrt eval --task PickXtimes --policy am_grounded --episodes 50

        memrt eval --policy memoryless --episodes 50 --workers 2 --json > memoryless.json

        memrt eval --bundle my_bundle --against its_fp32_twin --episodes 50
    """
    if robot != "sim":
        raise MemrtError(
            f"cannot evaluate on robot `{robot}`",
            expected="`sim`",
            found=f"`{robot}`",
            fix="use `memrt run` for other robots: only the simulator knows by itself whether it succeeded",
        )
    folder = find_bundle(bundle, policy, precision.value)
    other_folder = None if against is None else find_bundle(against, None, precision.value)
    for path in (folder, other_folder):
        if path is not None:
            require_halves(load_bundle(path, verify=False))
    with needs_extra("sim", "cpu"):
        from memrt.sim.evaluate import compare, evaluate

    seeds = range(seed_start, seed_start + episodes)
    report = evaluate(folder, task, seeds, workers=workers, on_episode=_print_episode)
    if other_folder is not None:
        other = evaluate(other_folder, task, seeds, workers=workers, on_episode=_print_episode)
        report = report | {"against": other, "paired_difference95": compare(report, other)}
    if as_json:
        typer.echo(json.dumps(report, allow_nan=False))
    else:
        Console().print(as_table(report))


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
