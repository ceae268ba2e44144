"""The `memrt` command: one subcommand per file, each importing what it needs only when it runs."""

from __future__ import annotations

import sys

import typer

from memrt.runtime.cli import (
    bench_command,
    build_command,
    bundle_command,
    calib_command,
    cameras_command,
    doctor_command,
    eval_command,
    export_command,
    fidelity_command,
    flash_command,
    keygen_command,
    link_keys_command,
    node_command,
    profile_command,
    replay_command,
    report_command,
    run_command,
    serve_command,
    service_command,
    sign_command,
    sim_command,
    target_command,
    train_command,
    verify_command,
    wheelhouse_command,
)
from memrt.runtime.errors import MemrtError

REFUSED = 2  # exit status of a command that refused its input, as for a misspelt option


def build_app() -> typer.Typer:
    """The command-line application with all its commands."""
    app = typer.Typer(
        name="memrt",
        help="Run robot policies that remember, on the robot's own computer.\n\nBegin with: memrt run --robot sim",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
    )
    for command in (
        run_command,
        service_command,
        node_command,
        link_keys_command,
        replay_command,
        report_command,
        serve_command,
        eval_command,
        sim_command,
        train_command,
        export_command,
        fidelity_command,
        calib_command,
        build_command,
        bundle_command,
        keygen_command,
        sign_command,
        verify_command,
        wheelhouse_command,
        flash_command,
        target_command,
        bench_command,
        profile_command,
        cameras_command,
        doctor_command,
    ):
        command.register(app)
    return app


def main() -> None:
    """Run the command line. A refusal is one line on stderr and exit status 2, never a traceback."""
    try:
        build_app()()
    except MemrtError as error:
        print(f"memrt: {error}", file=sys.stderr)
        sys.exit(REFUSED)
