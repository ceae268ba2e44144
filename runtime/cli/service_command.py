"""`memrt service`: a policy that the robot's computer loads by itself at boot, and drives when it is told to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from memrt.runtime.errors import MemrtError
from memrt.runtime.service.config import SETTINGS
from memrt.runtime.service.control import CONTROL, Request, ask, await_health

Control = Annotated[Path, typer.Option(help="The service's control socket.", envvar="MEMRT_CONTROL")]
Settings = Annotated[Path, typer.Option(help="The service's settings.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
UNHEALTHY = 1


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    service = typer.Typer(
        help="The service on the robot's computer: install it, arm it, look at it.", no_args_is_help=True
    )
    for name, command in (
        ("install", install),
        ("run", run),
        ("status", status),
        ("health", health),
        ("arm", arm),
        ("stop", stop),
        ("resume", resume),
        ("disarm", disarm),
        ("logs", logs),
    ):
        service.command(name)(command)
    app.add_typer(service, name="service")


def install(
    robot: Annotated[str, typer.Argument(help="A packaged robot, or the whole path of a robot YAML.")],
    *,
    host: Annotated[str | None, typer.Option(help="The robot's own address.")] = None,
    goal: Annotated[str | None, typer.Option(help="What to do, unless arming says another.")] = None,
    user: Annotated[str, typer.Option(help="The account that the service runs under; made if need be.")] = "memrt",
    memrt: Annotated[str, typer.Option(help="The command that the units call.")] = "/opt/memrt/current/bin/memrt",
    root: Annotated[
        Path | None, typer.Option(help="Write the files below this folder and do nothing else: for images.")
    ] = None,
) -> None:
    """Write the units, make the account and its folders, and let systemd start the service at every boot. Needs root.

    Settings that are there already are kept. Nothing is started, and nothing ever starts armed.

    Examples:

        sudo memrt service install /etc/memrt/my_franka.yaml --host 172.16.0.2

        memrt service install sim --root image/
    """
    from memrt.robot_io.config import load_robot
    from memrt.runtime.service.install import activate, settings_text, write_files
    from memrt.runtime.service.units import Units, node_arguments

    found = load_robot(robot)
    path = robot if "/" not in robot and "." not in robot else str(Path(robot).expanduser().resolve())
    node = node_arguments(path, host) if found.link.endpoint is None else None
    units = Units(memrt=memrt, user=user, node=node)
    done = write_files(units, settings_text(path, host, goal), root or Path("/"))
    if root is None:
        activate(units)
    for written in done.written:
        typer.echo(f"wrote {written}")
    for kept in done.kept:
        typer.echo(f"kept  {kept}")
    typer.echo("next: memrt flash this computer from your workstation, or put a bundle at /var/lib/memrt/current")


def run(
    *,
    settings: Settings = SETTINGS,
    control: Control = CONTROL,
    node: Annotated[
        str | None,
        typer.Option(help="Where the robot's node listens that the unit starts.", show_default="start one"),
    ] = None,
) -> None:
    """Be the service, in the foreground: what the unit and the container call. Ends with SIGTERM, the arm at rest.

    Exit status: 0 after SIGTERM, 1 when a policy failed, 2 when the bundle was refused, 75 when this computer is not
    ready for it (no GPU, a new driver: `memrt build`), 78 when the settings were refused.

    Example:

        memrt service run --settings service.yaml --control /tmp/memrt-control
    """
    from memrt.runtime.cli.service_session import serve

    if ended := serve(settings, control, node):
        raise typer.Exit(ended)


def status(*, control: Control = CONTROL, as_json: AsJson = False) -> None:
    """What the service does now.

    Example:

        memrt service status
    """
    _show(ask(Request("status"), control), as_json)


def health(
    *,
    wait: Annotated[float, typer.Option(min=0.0, help="Wait so many seconds for the service to have looked.")] = 60.0,
    control: Control = CONTROL,
    as_json: AsJson = False,
) -> None:
    """Whether every engine reproduces its golden outputs, the cameras are fresh and the low level is fast enough.

    The service looks whenever it connects to the robot; this asks what it found. Exit status 1 unless all is well.

    Example:

        memrt service health --json
    """
    found = await_health(control, wait)
    _show(found, as_json)
    if not (found["health"] or {}).get("healthy"):
        raise typer.Exit(UNHEALTHY)


def arm(
    *,
    goal: Annotated[str | None, typer.Option(help="What to do.", show_default="the settings' goal")] = None,
    control: Control = CONTROL,
    as_json: AsJson = False,
) -> None:
    """Let the policy drive the robot. Keep the emergency stop within reach.

    Example:

        memrt service arm --goal "put the red cube into the bowl"
    """
    _show(ask(Request("arm", goal), control), as_json)


def stop(*, control: Control = CONTROL, as_json: AsJson = False) -> None:
    """Stop the arm; answered when it is at rest. The policy keeps its memory, and goes on with `resume`.

    Example:

        memrt service stop
    """
    _show(ask(Request("stop"), control), as_json)


def resume(*, control: Control = CONTROL, as_json: AsJson = False) -> None:
    """Go on after a stop or a hold. Nothing else does.

    Example:

        memrt service resume
    """
    _show(ask(Request("resume"), control), as_json)


def disarm(*, control: Control = CONTROL, as_json: AsJson = False) -> None:
    """End the run; answered when the arm is at rest. What the policy remembers of the run is gone.

    Example:

        memrt service disarm
    """
    _show(ask(Request("disarm"), control), as_json)


def logs(
    *,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on printing what comes.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="Newest lines to print.")] = 100,
) -> None:
    """What runtime, node and rollback have said, newest last (journalctl).

    Example:

        memrt service logs -f
    """
    from memrt.runtime.service.units import NODE, ROLLBACK, RUNTIME

    units = [f"--unit={name}" for name in (RUNTIME, NODE, ROLLBACK)]
    command = ["journalctl", *units, f"--lines={lines}", "--output=short-iso", *(["--follow"] if follow else [])]
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise MemrtError(
            "`memrt service logs`", expected="journalctl", found=error, fix="in a container: `podman logs`"
        ) from error


def _show(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found, allow_nan=False))
        return
    console = Console()
    line = f"[bold]{found['phase']}[/]"
    console.print(line, end="")
    console.print(f"  {found['reason']}" if found["reason"] else "", markup=False, highlight=False)
    for name in ("robot", "bundle", "goal", "subgoal"):
        if found[name]:
            console.print(f"{name:>9}  {found[name]}", markup=False, highlight=False)
    if last := found["last_run"]:
        words = f"{last['outcome']} after {last['duration_s']:.1f} s  {last['reason']}".rstrip()
        console.print(f" last run  {words}", markup=False, highlight=False)
    if report := found["health"]:
        table = Table("check", "asked", "found", "", box=None, pad_edge=False, header_style="dim")
        for check in report["checks"]:
            table.add_row(
                check["what"], check["asked"], check["found"], {True: "ok", False: "NO", None: "?"}[check["met"]]
            )
        console.print(table)
