"""`memrt target`: what `memrt flash` and the service ask of the robot's computer. Hidden: people use those two."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

from memrt.runtime.cli.progress import tell

JSON = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    target = typer.Typer(
        help="The robot computer's side of `memrt flash`: bundles installed here, and which one runs.",
        no_args_is_help=True,
    )
    for command in (session, list_, status, rollback, recover):
        target.command(command.__name__.rstrip("_"))(command)
    app.add_typer(target, name="target", hidden=True)


def session() -> None:
    """Serve one `memrt flash` over stdin and stdout."""
    from memrt.runtime.deploy.target.layout import Layout
    from memrt.runtime.deploy.target.session import own_channel, serve

    raise typer.Exit(serve(Layout.here(), own_channel()))


def list_(*, as_json: JSON = False) -> None:
    """The bundles that were installed here, and what became of each."""
    from memrt.runtime.cli.flash_display import show_bundles
    from memrt.runtime.deploy.target.layout import Layout
    from memrt.runtime.deploy.target.report import list_bundles

    _print(list_bundles(Layout.here()), as_json, show_bundles)


def status(*, as_json: JSON = False) -> None:
    """What runs here, whether it is healthy, and whether a flash is under way."""
    from memrt.runtime.cli.flash_display import show_status
    from memrt.runtime.deploy.target.layout import Layout
    from memrt.runtime.deploy.target.report import status_of

    _print(status_of(Layout.here()), as_json, show_status)


def rollback(
    *,
    to: Annotated[str | None, typer.Option(help="A bundle that `list` names.", show_default="the one before")] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="The service gave up on the current bundle: what OnFailure= calls.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Kept in the ledger.")] = "",
    as_json: JSON = False,
) -> None:
    """Go back to the bundle before, and restart the service with it, disarmed."""
    from memrt.runtime.cli.flash_display import show_rollback
    from memrt.runtime.deploy.target.layout import Layout
    from memrt.runtime.deploy.target.lock import BusyError
    from memrt.runtime.deploy.target.undo import roll_back_and_start

    try:
        report = roll_back_and_start(Layout.here(), tell, to=to, failed=failed, reason=reason)
    except BusyError as error:
        if not failed:
            raise
        tell(f"{error.found} is under way: it sees the failure, and decides")
        return
    _print(report, as_json, show_rollback)
    if report["healthy"] is False:
        raise typer.Exit(1)


def recover(*, as_json: JSON = False) -> None:
    """Undo a flash that was cut short, if there is one: the service runs this before it starts."""
    from memrt.runtime.deploy.target.layout import Layout
    from memrt.runtime.deploy.target.undo import recover as undo

    undone = undo(Layout.here())
    if as_json:
        print(json.dumps({"undone": undone}))
    elif undone is not None:
        tell(f"undid the flash of {undone}, which was cut short")


def _print(report: dict[str, Any], as_json: bool, show: Callable[[dict[str, Any]], None]) -> None:
    if as_json:
        print(json.dumps(report))
    else:
        show(report)
