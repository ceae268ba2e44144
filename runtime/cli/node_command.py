"""`memrt node`: a robot's side of the link, beside the arm."""

from __future__ import annotations

from typing import Annotated

import typer

from memrt.runtime.cli.eval_command import EVALUATION_SEEDS_START
from memrt.runtime.cli.progress import tell
from memrt.runtime.loop.settings import check_speed


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("node")(node)


def node(
    robot: Annotated[str, typer.Argument(help="A packaged robot, or a robot YAML.")],
    *,
    host: Annotated[str | None, typer.Option(help="The robot's own address.", show_default="the YAML's")] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="Where to listen: tcp://host:port (and the next two ports), or ipc:///path.",
            show_default="the YAML's, else tcp://127.0.0.1:5550",
        ),
    ] = None,
    keys: Annotated[
        str | None,
        typer.Option(
            help="The folder with the node's keys (memrt link-keys), for endpoints beyond this computer.",
            show_default="the YAML's",
        ),
    ] = None,
    speed: Annotated[float, typer.Option(help="Slow the robot down: 0.3 moves at 30 %.")] = 1.0,
    task: Annotated[str, typer.Option(help="The simulator's task.")] = "PickXtimes",
    seed: Annotated[int, typer.Option(min=0, help="Of the simulated scene.")] = EVALUATION_SEEDS_START,
) -> None:
    """Serve a robot until Ctrl-C: cameras, driver, watchdog. `memrt run` connects to it, from here or over the network.

    The robot follows nobody before a client arms it, brakes when its client falls silent, and is at rest when this
    command ends.

    Examples:

        memrt node sim

        memrt node my_arm.yaml --host 172.16.0.2 --endpoint tcp://192.168.1.10:5550 --keys ~/robot-keys
    """
    from memrt.robot_io.serve_node import NodeOptions, serve_node

    check_speed(speed)
    options = NodeOptions(robot=robot, endpoint=endpoint, keys=keys, host=host, speed=speed, task=task, seed=seed)
    serve_node(options, typer.echo, tell)
