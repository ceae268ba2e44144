"""`memrt export`: turn a policy's weights into a bundle of quantised, gated engines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from memrt.runtime.bundle import Bundle, load_bundle
from memrt.runtime.cli.eval_command import Precision
from memrt.runtime.cli.extras import needs_extra


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("export")(export)


def export(
    policy: Annotated[str, typer.Argument(help="The policy YAML, or a packaged policy's name.", metavar="POLICY.yaml")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Bundle folder to write; an older bundle is replaced.")],
    precision: Annotated[Precision, typer.Option(help="int8 runs fastest on CPUs; fp32 is the reference.")] = (
        Precision.INT8
    ),
    weights: Annotated[
        Path | None, typer.Option(help="Folder that holds the policy's weights.", show_default="the committed ones")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Recorded episodes to calibrate int8.", show_default="the committed ones")
    ] = None,
) -> None:
    """Turn a policy's weights into a bundle of quantised engines, ready to run.

    Each engine must agree with the torch model it came from, on its worst sample, or nothing is written.

    Examples:

        memrt export configs/policies/am_grounded.yaml -o my_bundle

        memrt export am_simple -o my_bundle --precision fp32

        memrt export my_policy.yaml -o my_bundle --weights runs/reference/weights
    """
    with needs_extra("export", "cpu"):
        from memrt.export.pipeline import export_policy

    export_policy(
        policy,
        out,
        precision=precision.value,
        weights_root=weights,
        calibration=calibration,
        progress=lambda line: typer.echo(line, err=True),
    )
    Console().print(as_table(load_bundle(out)))


def as_table(bundle: Bundle) -> Table:
    """One row per engine: what it became and what its gate measured."""
    table = Table("engine", "precision", "MB", "gate", title=f"{bundle.manifest.name} -> {bundle.path}")
    for name, engine in sorted(bundle.manifest.engines.items()):
        measured = {key: value for key, value in engine.gate.items() if isinstance(value, int | float)}
        gate = ", ".join(f"{key} {value:.4g}" for key, value in sorted(measured.items()))
        table.add_row(name, engine.precision, f"{_megabytes(bundle, engine.file):.1f}", gate)
    total = sum(_megabytes(bundle, relative) for relative in bundle.manifest.files)
    table.caption = f"{len(bundle.manifest.files)} files, {total:.1f} MB, {bundle.manifest.proven_on_device}"
    return table


def _megabytes(bundle: Bundle, relative: str) -> float:
    return bundle.file(relative).stat().st_size / 1e6
