"""`memrt link-keys`: keys for a robot's link that leaves this computer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("link-keys")(link_keys)


def link_keys(
    folder: Annotated[Path, typer.Argument(help="Where the folders with the keys are made.", show_default=False)],
    *,
    client: Annotated[
        str, typer.Option(help="The client's name; once more with another name admits another client.")
    ] = "client",
) -> None:
    """Make keys with which a robot's node and its client know each other; needed where they are two computers.

    A node that other computers can reach does not start without keys, and lets nobody in that it has no public key of.

    Example:

        memrt link-keys ~/robot-keys
    """
    from memrt.robot_io.link.keys import make_keys

    node, own = make_keys(folder.expanduser(), client)
    typer.echo(f"{node}  for the robot's computer: memrt node ROBOT --endpoint tcp://... --keys {node}")
    typer.echo(f"{own}  for the client: `keys: {own}` under `link` in the robot's YAML")
    typer.echo("Each holds a secret: copy it to its own computer only, with the files' modes.")
