"""`memrt bench lowlevel`: what the high level costs the low level, on this computer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from memrt.runtime.cli.extras import needs_extra
from memrt.runtime.cli.progress import tell


def register(bench: typer.Typer) -> None:
    """Add the command to `memrt bench`."""
    bench.command("lowlevel")(low_level)


def low_level(
    *,
    bundle: Annotated[Path | None, typer.Option(help="Bundle folder.", show_default="the reference bundle")] = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="Measured in each condition, in blocks of 5 s.")] = 60.0,
    threads: Annotated[
        str | None,
        typer.Option(
            help="The shares to judge, low level and high level, e.g. 2,1.", show_default="those of `memrt run`"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Time the action expert's calls with the VLM off, and with it answering without a pause on the same cores.

    Off is measured at every thread setting, and the fastest counts. `equal` is what one has without shares and ranks:
    both policies with as many threads as cores, none standing back.

    Examples:

        memrt bench lowlevel --json

        taskset -c 0,1 memrt bench lowlevel --bundle my_bundle --seconds 120 --threads 2,2
    """
    from memrt.runtime.bundle import load_bundle
    from memrt.runtime.cli.default_bundle import find_bundle
    from memrt.runtime.thread_budget import ThreadBudget

    with needs_extra("cpu"):
        from memrt.runtime.bench.low_level import bench_low_level

    budget = None if threads is None else ThreadBudget.parse(threads)
    loaded = load_bundle(find_bundle(bundle, None, "int8"))
    report = bench_low_level(loaded, seconds=seconds, threads=budget, progress=tell)
    if as_json:
        typer.echo(json.dumps(report, allow_nan=False))
    else:
        Console().print(low_level_table(report))


def low_level_table(report: dict[str, Any]) -> Table:
    """One row per condition."""
    percentiles = ("p50", "p90", "p99", "p99.9", "max")
    table = Table("high level", "calls", *(f"{name} ms" for name in percentiles), "answers/s")
    table.title = f"low-level calls of {report['policy']}"
    for name, found in report["conditions"].items():
        columns = [f"{found[column]:.1f}" for column in percentiles]
        table.add_row(name, str(found["calls"]), *columns, f"{found['high_level_calls_per_s']:.2f}")
    table.caption = (
        f"p99 with the high level on is {report['ratio_p99']:.2f}x that of `{report['fastest_off']}`, its fastest; "
        f"{report['how']}"
    )
    return table
