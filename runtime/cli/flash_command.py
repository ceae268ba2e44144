"""`memrt flash`: bring a bundle to run on the robot's computer, or take it back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memrt.runtime.errors import MemrtError

if TYPE_CHECKING:
    from memrt.runtime.deploy.host.flash import Outcome
    from memrt.runtime.deploy.host.ssh import Robot


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("flash")(flash)


def flash(
    host: Annotated[str, typer.Argument(help="The robot's computer, as ssh knows it.", metavar="HOST")],
    bundle: Annotated[
        str | None, typer.Argument(help="A bundle's folder, or the name of a reference policy.", metavar="BUNDLE")
    ] = None,
    *,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to the bundle that ran before.")] = False,
    to: Annotated[
        str | None, typer.Option(help="With --rollback: a bundle that --list names.", show_default="the one before")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="What was installed there, and what became of it.")] = False,
    status: Annotated[bool, typer.Option("--status", help="What runs there, and whether it is healthy.")] = False,
    runtime: Annotated[
        Path | None, typer.Option(help="Install this memrt there first: a wheel set of `memrt wheelhouse`.")
    ] = None,
    allow_unsigned: Annotated[
        bool, typer.Option("--allow-unsigned", help="Install it even if no key that is trusted there vouches for it.")
    ] = False,
    ssh: Annotated[
        str, typer.Option(help="The ssh command, with its options: 'ssh -p 2222 -i key'.", envvar="MEMRT_SSH")
    ] = "ssh",
    sudo: Annotated[bool, typer.Option("--sudo", help="Become root there by sudo, which must ask nothing.")] = False,
    runtimes: Annotated[str, typer.Option(help="Where runtimes are installed there.")] = "/opt/memrt",
    precision: Annotated[str, typer.Option(help="Of a reference policy.")] = "int8",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Bring a bundle to run on the robot's computer, and keep it only if it is healthy there.

    Checks that the computer suits it, sends what is missing, verifies every byte there, builds what must be built
    there, switches in one step, starts the service disarmed and has it examined: engines, golden outputs, cameras,
    latency. Whatever goes wrong, Ctrl-C and a cut cable included, leaves or brings back the bundle that ran before.
    Flash again to go on where a transfer was cut.

    Examples:

        memrt flash robot my_bundle

        memrt flash root@10.0.0.7 my_bundle --runtime wheelhouse

        memrt flash robot --status

        memrt flash robot --rollback
    """
    from memrt.runtime.deploy.host.ssh import Robot
    from memrt.runtime.deploy.host.verbs import ask

    robot = Robot(host, ssh, sudo)
    asked = [name for name, given in (("BUNDLE", bundle), ("--rollback", rollback), ("--list", list_)) if given]
    asked += ["--status"] if status else []
    if len(asked) != 1 or (to is not None and not rollback):
        raise MemrtError(
            "memrt flash",
            expected="one of BUNDLE, --rollback, --list and --status (--to goes with --rollback)",
            found=", ".join(asked) or "none",
            fix="memrt flash HOST BUNDLE",
        )
    memrt = [f"{runtimes}/current/bin/memrt"]
    if bundle is not None:
        _flash(robot, bundle, precision, runtime, runtimes, allow_unsigned, as_json)
        return
    verb, show = _asked(list_, status)
    report = ask(robot, memrt, verb, *(("--to", to) if to else ()))
    if as_json:
        print(json.dumps({"host": host, **report}))
    else:
        show(report)
    if report.get("healthy") is False:
        raise typer.Exit(1)


def _asked(list_: bool, status: bool) -> tuple[str, Callable[[dict[str, Any]], None]]:
    from memrt.runtime.cli.flash_display import show_bundles, show_rollback, show_status

    return ("list", show_bundles) if list_ else ("status", show_status) if status else ("rollback", show_rollback)


def _flash(
    robot: Robot, name: str, precision: str, wheels: Path | None, runtimes: str, allow_unsigned: bool, as_json: bool
) -> None:
    from memrt.runtime.cli.default_bundle import find_bundle
    from memrt.runtime.cli.flash_display import FlashDisplay
    from memrt.runtime.deploy.frames import seconds_since
    from memrt.runtime.deploy.host.flash import flash as bring
    from memrt.runtime.deploy.host.runtime import install_runtime
    from memrt.runtime.signing import verify_bundle

    began_ns = time.monotonic_ns()
    folder = Path(name) if Path(name).is_dir() else find_bundle(None, name, precision)
    with FlashDisplay() as display:
        display.step(f"verifying {folder} here")
        # Whom to trust is the robot's affair, which has the keys.
        bundle = verify_bundle(folder, (), allow_unsigned=True).bundle
        version = None if wheels is None else install_runtime(robot, wheels, runtimes, display)
        memrt = [f"{runtimes}/{version or 'current'}/bin/memrt"]
        outcome = bring(robot, memrt, bundle, display, runtime=version, allow_unsigned=allow_unsigned)
    outcome.seconds["total"] = round(seconds_since(began_ns), 2)
    if as_json:
        print(json.dumps(_report(robot.host, bundle.manifest.version, outcome)))
    else:
        _tell(robot.host, outcome)


def _report(host: str, version: int, outcome: Outcome) -> dict[str, Any]:
    return {
        "host": host,
        "bundle": outcome.folder,
        "version": version,
        "changed": outcome.kept,
        "previous": outcome.previous,
        "signer": outcome.signer,
        "bytes": outcome.bytes,
        "sent_bytes": outcome.sent,
        "ledger_ms": outcome.ledger_ms,
        "switch_ms": outcome.switch_ms,
        "seconds": outcome.seconds,
        "health": outcome.health,
        "robot_computer": outcome.facts,
    }


def _tell(host: str, outcome: Outcome) -> None:
    from memrt.runtime.cli.flash_display import show_health

    if not outcome.kept:
        typer.echo(f"{host} runs {outcome.folder} already: nothing was changed")
        return
    typer.echo(
        f"{host} runs {outcome.folder}, {outcome.signer}: {outcome.sent / 1e6:.1f} MB sent, switched in "
        f"{outcome.switch_ms:.0f} ms, {outcome.seconds['total']:.1f} s in all"
    )
    show_health(outcome.health)
    back = "memrt flash HOST --rollback goes back to" if outcome.previous else "there is no bundle to go back to"
    typer.echo(f"disarmed: `memrt service arm` there lets it move; {back} {outcome.previous or 'yet'}")
