"""`memrt doctor`: what keeps this computer from running a robot well, what it costs, and the command that mends it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from memrt.runtime.bench.hardware import hardware, versions
from memrt.runtime.cli.progress import tell
from memrt.runtime.cli.trust_options import TrustedKeys
from memrt.runtime.doctor.snapshot import BundleFacts, Snapshot, load, save
from memrt.runtime.errors import MemrtError


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("doctor")(doctor)


def doctor(
    *,
    robot: Annotated[
        str | None,
        typer.Option(help="A robot's YAML, or `sim`: its cameras, its network, what its driver needs."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="The robot's address, where the YAML does not have it.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="The bundle that is to run here.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for engines and proofs.", show_default="BUNDLE.engines, beside it")
    ] = None,
    keys: TrustedKeys = None,
    folder: Annotated[Path, typer.Option(help="Where recordings go: its disk is looked at.")] = Path("."),
    measure: Annotated[
        bool,
        typer.Option(help="Measure lateness (2 s), disk (64 MB written), network (2 s); or only look."),
    ] = True,
    everything: Annotated[bool, typer.Option("--all", help="Show what is fine or cannot be seen here, too.")] = False,
    save_to: Annotated[
        Path | None, typer.Option("--save", help="Write all that was seen to this file, to be judged elsewhere.")
    ] = None,
    snapshot_file: Annotated[
        Path | None, typer.Option("--snapshot", help="Judge what `--save` wrote, on whatever computer.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Look for what keeps this computer from running a robot well; say what it costs and the command that mends it.

    Nothing is changed. Silent about what is fine. Exit status 0: nothing found; 1: it works, at a cost; 3: something
    that was asked for does not work (this bundle, this robot, any engine at all); 2: the question was refused.

    Examples:

        memrt doctor

        memrt doctor --robot my_franka.yaml --host 172.16.0.2 --bundle my_bundle

        memrt doctor --save facts.json --no-measure
    """
    from memrt.runtime.doctor.examine import PACKAGES, as_document, examine, exit_status
    from memrt.runtime.doctor.printed import print_report
    from memrt.runtime.doctor.subjects import bundle_facts

    if snapshot_file is not None:
        if robot or host or bundle or save_to:
            raise MemrtError(
                "--snapshot",
                expected="no robot, host, bundle or --save beside it: they are in the snapshot",
                found="one of them",
                fix="leave it out, or look at this computer",
            )
        snapshot = load(snapshot_file)
    else:
        bundle_seen = None if bundle is None else bundle_facts(bundle, cache, keys)
        snapshot = _look(robot, host, bundle_seen, folder, measure=measure)
    if save_to is not None:
        save(snapshot, save_to)
    report = examine(snapshot)
    if as_json:
        document = as_document(snapshot, report, everything=everything)
        if snapshot_file is None:
            document |= {"hardware": hardware(), "versions": versions(PACKAGES)}
        typer.echo(json.dumps(document, allow_nan=False))
    else:
        print_report(snapshot, report, Console(), everything=everything)
    raise typer.Exit(exit_status(report))


def _look(robot: str | None, host: str | None, bundle: BundleFacts | None, folder: Path, *, measure: bool) -> Snapshot:
    from memrt.runtime.doctor.collect import collect
    from memrt.runtime.doctor.measure import measure_clock, measure_disk, measure_lateness, measure_network
    from memrt.runtime.doctor.subjects import robot_facts, robot_host

    if not folder.is_dir():
        raise MemrtError(f"--folder {folder}", expected="a folder", found="none", fix="make it, or name another")
    seen = msgspec.structs.replace(collect(), bundle=bundle, clock=measure_clock(), realsense=_realsense())
    if robot is not None:
        from memrt.robot_io.config import load_robot

        config = load_robot(robot)
        seen = msgspec.structs.replace(seen, robot=robot_facts(config))
        host = host or robot_host(config)
    if measure:
        tell("measuring for a few seconds")
        seen = msgspec.structs.replace(seen, lateness=measure_lateness())
        if host is not None:
            seen = msgspec.structs.replace(seen, network=measure_network(host))
    # Last: the disk goes on writing for a while after it.
    return msgspec.structs.replace(seen, disk=measure_disk(folder, write=measure))


def _realsense() -> tuple[dict[str, str], ...] | None:
    """What librealsense lists; None where it is not installed or does not load."""
    from memrt.robot_io.cameras.realsense import list_realsense

    try:
        return tuple(list_realsense())
    except (ImportError, RuntimeError):
        return None
