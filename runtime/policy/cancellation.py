"""How a call ends before its answer: a newer request supersedes it, or the operator changes the goal."""

from __future__ import annotations

from collections.abc import Callable

Cancel = Callable[[], bool]


class Cancelled(Exception):  # noqa: N818  # nothing is wrong: the caller asked for it
    """The call was given up because its `cancelled` said so. What it had computed is kept for the next call."""


def check(cancelled: Cancel | None) -> None:
    """Raise Cancelled when the call is not wanted any more."""
    if cancelled is not None and cancelled():
        raise Cancelled
