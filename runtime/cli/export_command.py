"""`memrt export`: turn a policy's weights into a bundle of quantised, gated engines."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from memrt.runtime.bundle import Bundle, load_bundle
from memrt.runtime.cli.eval_command import Precision
from memrt.runtime.cli.extras import needs_extra


class Gate(str, Enum):
    """How a quantised bundle is compared with its fp32 twin before it gets its name."""

    SIM = "sim"
    EPISODES = "episodes"


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
    gate: Annotated[
        Gate | None,
        typer.Option(
            help="Also compare behaviour with fp32: success in the simulator (minutes), or subgoals and actions on "
            "recorded episodes.",
            show_default="graphs only",
        ),
    ] = None,
    gate_seeds: Annotated[
        int, typer.Option(min=1, help="Episodes of --gate sim; fewer than 35 cannot show anything.")
    ] = 100,
    gate_task: Annotated[str, typer.Option(help="Task of --gate sim.")] = "PickXtimes",
) -> None:
    """Turn a policy's weights into a bundle of quantised engines, ready to run.

    Each engine must agree with the torch model it came from, on its worst sample, or nothing is written. With --gate
    the finished bundle must also behave as one exported in fp32: --gate sim refuses unless the episodes show that at
    most 10 points of success are lost (upper end of the paired 95 % interval). The bundle holds what was measured, in
    report.html and report.json.

    Examples:

        memrt export configs/policies/am_grounded.yaml -o my_bundle

        memrt export am_simple -o my_bundle --precision fp32

        memrt export my_policy.yaml -o my_bundle --weights runs/reference/weights

        memrt export am_grounded -o my_bundle --gate sim --gate-seeds 100
    """
    with needs_extra("export", "cpu"):
        from memrt.export.pipeline import export_policy

    def tell(line: str) -> None:
        typer.echo(line, err=True)

    export_policy(
        policy,
        out,
        precision=precision.value,
        weights_root=weights,
        calibration=calibration,
        behaviour=behaviour_gate(gate, gate_seeds, gate_task, calibration, tell),
        progress=tell,
    )
    Console().print(as_table(load_bundle(out)))


def behaviour_gate(
    gate: Gate | None, seeds: int, task: str, calibration: Path | None, tell: Callable[[str], None]
) -> Callable[[Path, Path], dict[str, Any]] | None:
    """The comparison of a bundle with its fp32 twin that `--gate` asks for.

    Raises MemrtError for too few seeds and for an unknown task.
    """
    if gate is None:
        return None
    if gate is Gate.EPISODES:
        from memrt.export.episodes_gate import episodes_gate

        return lambda bundle, reference: episodes_gate(bundle, reference, calibration)
    with needs_extra("sim", "cpu"):
        from memrt.export.sim_gate import FIRST_SEED, check_seeds, sim_gate
        from memrt.sim.tasks import make_task

    chosen = range(FIRST_SEED, FIRST_SEED + seeds)
    check_seeds(chosen)  # the export takes minutes: refuse before it
    make_task(task, FIRST_SEED)
    workers = len(os.sched_getaffinity(0))  # the outcome does not depend on it
    return lambda bundle, reference: sim_gate(bundle, reference, task, chosen, workers=workers, progress=tell)


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
