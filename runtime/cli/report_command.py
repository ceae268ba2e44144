"""`memrt report`: one recorded run as one HTML page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from memrt.runtime.errors import MemrtError


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("report")(report_run)


def report_run(
    run: Annotated[Path, typer.Argument(help="What `memrt run --record` wrote, or the folder that holds it.")],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The HTML file.", show_default="RUN.html, beside the recording")
    ] = None,
    no_video: Annotated[bool, typer.Option("--no-video", help="Leave the video out; keyframes stay.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Write a recorded run as one HTML page: subgoals, memory, keyframes, latencies and the video on one timeline.

    The page needs nothing beside it, loads nothing, and opens in any browser, from a disk too.

    Examples:

        memrt run --robot sim --record run.mcap && memrt report run.mcap

        memrt report run.mcap --no-video -o page.html
    """
    from memrt.runtime.report.run.build import build, find_recording
    from memrt.runtime.report.run.page import page

    recording = find_recording(run)
    target = recording.with_suffix(".html") if out is None else out
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise MemrtError(
            f"report {target}",
            expected="a file in a folder that exists",
            found="a folder" if target.is_dir() else f"no folder {target.absolute().parent}",
            fix="correct --out, or create the folder",
        )
    report, pictures = build(recording, video=not no_video)
    target.write_text(page(report, pictures), encoding="utf-8")
    size = target.stat().st_size
    if as_json:
        print(json.dumps({"report": str(target), "recording": str(recording), "bytes": size, **report.summary()}))
        return
    typer.echo(f"{target}: {size / 1e6:.1f} MB")
    for remark in report.remarks:
        typer.echo(remark, err=True)
