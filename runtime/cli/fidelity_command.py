"""`memrt fidelity`: how much of a policy's behaviour its quantised bundle keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from memrt.runtime.cli.eval_command import as_table
from memrt.runtime.cli.extras import needs_extra


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("fidelity")(fidelity)


def fidelity(
    bundle: Annotated[Path, typer.Argument(help="The bundle to judge, usually int8.", metavar="BUNDLE")],
    *,
    against: Annotated[Path, typer.Option(help="The bundle that counts as right, usually fp32.", metavar="BUNDLE")],
    calibration: Annotated[
        Path | None, typer.Option(help="Recorded moments to compare on.", show_default="the committed ones")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each engine.")] = 1,
    gate: Annotated[
        bool, typer.Option("--gate", help="Refuse where the two differ by more than the export's gate allows.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Compare two bundles of one policy on held-out recorded moments: same inputs, same noise.

    High level: how many greedy answers are the same text. Low level: how far the action chunks lie apart.

    Examples:

        memrt fidelity my_bundle --against its_fp32_twin --json

        memrt fidelity my_bundle --against its_fp32_twin --gate     # as memrt export --gate episodes judges
    """
    with needs_extra("cpu"):
        from memrt.export.episodes_gate import judge_fidelity
        from memrt.export.fidelity import compare_bundles

    report = compare_bundles(bundle, against, calibration=calibration, threads=threads)
    if gate:
        report |= {"threshold": judge_fidelity(report, report["bundle"]["precision"])["threshold"]}
    if as_json:
        typer.echo(json.dumps(report, allow_nan=False))
    else:
        Console().print(as_table(report))
