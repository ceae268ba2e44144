"""`memrt build`: make a bundle's engines on this computer, and prove that they compute what was exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from memrt.runtime.bundle import load_bundle
from memrt.runtime.cli.progress import tell
from memrt.runtime.device_engines import build_engines, prove, this_device


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("build")(build)


def build(
    bundle: Annotated[Path, typer.Argument(help="The bundle to make ready here.", metavar="BUNDLE")],
    *,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for engines and proofs.", show_default="BUNDLE.engines, beside it")
    ] = None,
    rebuild: Annotated[bool, typer.Option(help="Build again what was built for this GPU before.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of each engine.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Build a bundle's engines for this computer's GPU, then repeat its golden samples with them.

    Bundles that come ready to run, such as those for CPUs, are only proven. The bundle itself never changes; engines
    and the proof lie beside it.

    Examples:

        memrt build my_bundle

        memrt build my_bundle --rebuild --json
    """

    loaded = load_bundle(bundle)
    device = this_device(loaded)
    record = build_engines(loaded, device, cache=cache, rebuild=rebuild, progress=tell)
    proof = prove(loaded, device, cache=cache, threads=threads, progress=tell)
    built = {} if record is None else msgspec.to_builtins(record.engines)
    if as_json:
        report: dict[str, Any] = {
            "bundle": str(bundle),
            "bundle_sha256": proof.bundle,
            "policy": loaded.policy.name,
            "device": msgspec.to_builtins(device),
            "built": built,
            "engines": proof.engines,
            "gate": proof.agreement,
            "proven": True,
        }
        typer.echo(json.dumps(report, allow_nan=False))
        return
    table = Table("engine", "built", "cosine", "relative L2", title=f"{loaded.policy.name} on {device.describe()}")
    for name, found in proof.agreement.items():
        made = (
            f"{built[name]['size'] / 1e6:.1f} MB, {built[name]['seconds']:.0f} s" if name in built else "in the bundle"
        )
        table.add_row(name, made, f"{found['cosine']:.6f}", f"{found['relative_l2']:.1e}")
    table.caption = "proven on this device"
    Console().print(table)
