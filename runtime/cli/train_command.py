"""`memrt train`: make policies from nothing but the simulator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from memrt.runtime.cli.extras import needs_extra


def register(app: typer.Typer) -> None:
    """Add the command group to `app`."""
    group = typer.Typer(no_args_is_help=True, help="Train policies from nothing but the simulator.")
    group.callback()(lambda: None)  # keeps `reference` a word of its own while it is the only command
    group.command("reference")(reference)
    app.add_typer(group, name="train")


def reference(
    *,
    root: Annotated[Path, typer.Option(help="Folder for data, checkpoints and logs.")] = Path("runs/reference"),
    stage: Annotated[
        list[str] | None, typer.Option(help="Run this stage only; may be given more than once.", show_default="all")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from each stage's newest checkpoint.")] = False,
) -> None:
    """Reproduce the reference policies: record the scripted expert, then train all their parts.

    The weights and the log of the run are written below the root. Takes hours on a few CPU cores; a GPU is used when
    there is one.

    Examples:

        memrt train reference

        memrt train reference --resume

        memrt train reference --root runs/mine --stage low_level
    """
    with needs_extra("train", "sim"):
        from memrt.train.reproduce import train_reference

    train_reference(root=root, stages=stage or None, resume=resume)
