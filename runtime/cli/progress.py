"""Progress goes to stderr, so that stdout holds results only."""

from __future__ import annotations

import typer


def tell(line: str) -> None:
    """One line of progress."""
    typer.echo(line, err=True)
