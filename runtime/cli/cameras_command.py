"""`memrt cameras`: what is connected, and how the cameras of a robot's YAML do."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from memrt.runtime.cli.progress import tell
from memrt.runtime.errors import MemrtError

if TYPE_CHECKING:  # drivers are imported when a command needs them
    from memrt.robot_io.cameras.settings import CameraConfig

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Seconds = Annotated[float, typer.Option(min=0.1, max=3600.0, help="How long to look.")]
NOT_WELL = 1  # exit status when a camera works, but not as configured


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    cameras = typer.Typer(help="List cameras, and look at those of a robot's YAML.", no_args_is_help=True)
    cameras.command("list")(list_cameras)
    cameras.command("show")(show)
    cameras.command("check")(check)
    app.add_typer(cameras, name="cameras")


def list_cameras(*, as_json: AsJson = False) -> None:
    """List the RealSense and V4L2 cameras of this computer, by what a robot's YAML calls them.

    Example:

        memrt cameras list
    """
    from memrt.robot_io.cameras.realsense import list_realsense
    from memrt.robot_io.cameras.video4linux import list_v4l2

    found: dict[str, Any] = {"realsense": None, "v4l2": list_v4l2()}
    missing = ""
    try:
        found["realsense"] = list_realsense()
    except ImportError as error:  # the package, or the system's libusb that it needs
        missing = f"RealSense cameras were not looked for: {error}. Fix: pip install 'memrt[realsense]', libusb-1.0-0"
        tell(missing)
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table("kind", "camera", "in the YAML", title="cameras of this computer")
    for device in found["realsense"] or []:
        table.add_row("realsense", f"{device['name']} (USB {device.get('usb', '?')})", f'serial: "{device["serial"]}"')
    for device in found["v4l2"]:
        table.add_row("v4l2", device["name"], f"path: {device['by_id'] or device['path']}")
    Console().print(table if table.row_count else "no camera is connected")


def show(
    name: Annotated[str, typer.Argument(help="The camera's name in the robot's YAML.")],
    *,
    robot: Annotated[Path, typer.Option(help="The robot's YAML.")],
    seconds: Seconds = 3.0,
    save: Annotated[Path | None, typer.Option(help="Save the last picture here, as PNG or JPEG.")] = None,
    as_json: AsJson = False,
) -> None:
    """Open one camera for a few seconds: its rate, how old its pictures arrive, what got lost.

    Example:

        memrt cameras show wrist --robot my_robot.yaml --save wrist.png
    """
    configs = _configured(robot)
    if name not in configs:
        raise MemrtError(
            f"camera `{name}`", expected=f"one of {', '.join(configs)}", found=f"`{name}`", fix=f"see {robot}"
        )
    _look({name: configs[name]}, seconds, save, as_json)


def check(
    robot: Annotated[Path, typer.Argument(help="The robot's YAML.")],
    *,
    seconds: Seconds = 3.0,
    as_json: AsJson = False,
) -> None:
    """Open all cameras of a robot together; exit status 1 unless each one gives what is configured.

    Example:

        memrt cameras check my_robot.yaml
    """
    _look(_configured(robot), seconds, None, as_json)


def _configured(path: Path) -> Mapping[str, CameraConfig]:
    from memrt.robot_io.config import load_robot

    robot = load_robot(path)
    if not isinstance(robot.cameras, dict):
        raise MemrtError(
            f"the cameras of {path}",
            expected="settings for each",
            found="names only",
            fix="these are the node's own; look at them with `memrt run`",
        )
    return robot.cameras


def _look(configs: Mapping[str, CameraConfig], seconds: float, save: Path | None, as_json: bool) -> None:
    from memrt.robot_io.cameras.rig import CameraRig
    from memrt.robot_io.cameras.watch import problems, watch

    with CameraRig(configs, f"memrt-{os.getpid()}-cameras", tell) as rig:
        reports = watch(rig, seconds)
        if save is not None:
            _save(next(iter(rig.cameras.values())).latest(), save)
    for name, report in reports.items():
        report["problems"] = problems(report, configs[name])
    well = not any(report["problems"] for report in reports.values())
    if as_json:
        typer.echo(json.dumps({"ok": well, "seconds": seconds, "cameras": reports}, allow_nan=False))
    else:
        Console().print(_table(reports))
        for name, report in reports.items():
            for problem in report["problems"]:
                tell(f"{name}: {problem}")
    if not well:
        raise typer.Exit(NOT_WELL)


def _save(frame: Any, path: Path) -> None:
    from PIL import Image

    try:
        Image.fromarray(frame.image).save(path)
    except (OSError, ValueError) as error:
        raise MemrtError(
            f"picture {path}", expected="a .png or .jpg that can be written", found=error, fix="choose another path"
        ) from error


def _table(reports: Mapping[str, Any]) -> Table:
    table = Table("camera", "frames", "frames/s", "age ms (max)", "apart ms (max)", "lost", "reconnects")
    table.caption = "medians; age on arrival; apart: from each picture of the first camera to the nearest one"
    for name, report in reports.items():
        pairs = (report["age_ms"], report["skew_ms"])
        shown = ("-" if pair is None else f"{pair[0]:.1f} ({pair[1]:.1f})" for pair in pairs)
        rate = "-" if report["fps"] is None else f"{report['fps']:.1f}"
        table.add_row(name, str(report["frames"]), rate, *shown, str(report["lost"]), str(report["reconnects"]))
    return table
