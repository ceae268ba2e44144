"""`memrt calib`: record a calibration set from recorded episodes, and look at one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from memrt.runtime.cli.extras import needs_extra

HELP = """Calibration sets: the recorded moments that quantisation measures and that gates judge.

A set is a folder of PNGs and one JSON file, small enough to commit. Half of its episodes set the ranges (role
`calibration`), the others judge the result (role `gate`); no episode does both.
"""
MOST_SUBGOALS = 12  # rows of the table; the JSON has them all


def register(app: typer.Typer) -> None:
    """Add the command group to `app`."""
    group = typer.Typer(no_args_is_help=True, help=HELP)
    group.command("record")(record)
    group.command("show")(show)
    app.add_typer(group, name="calib")


def record(
    dataset: Annotated[
        Path, typer.Argument(help="Recorded episodes: a folder with `low_level` and `high_level`.", metavar="EPISODES")
    ],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the set; an older set is replaced.")],
    name: Annotated[str | None, typer.Option(help="What the set is called.", show_default="the folder's name")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which moments are drawn; the same seed draws the same.")] = 0,
    low_level: Annotated[int, typer.Option(min=1, help="Moments of the action expert that set ranges.")] = 96,
    low_level_gate: Annotated[int, typer.Option(min=1, help="Moments of the action expert that judge.")] = 48,
    high_level: Annotated[int, typer.Option(min=1, help="Calls of the VLM that set ranges.")] = 64,
    high_level_gate: Annotated[int, typer.Option(min=1, help="Calls of the VLM that judge.")] = 48,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Draw a calibration set from recorded episodes.

    Give it episodes that no policy was trained on: agreement on memorised moments says little. Subgoals take turns, so
    that a rare phase is as well covered as a long one. What is remembered is kept as state, not as prompts, so one set
    serves every policy of a task.

    Examples:

        memrt train reference --stage record            # makes episodes, in the simulator

        memrt calib record runs/reference/calibration -o my_calibration --name "my task"

        memrt calib show my_calibration --png my_calibration.png

        memrt export am_grounded -o my_bundle --calibration my_calibration
    """
    with needs_extra("train"):
        from memrt.calib.record import Counts, record_calibration_set

    counts = Counts(low_level, low_level_gate, high_level, high_level_gate)
    title = name if name is not None else out.absolute().name
    recorded = record_calibration_set(dataset, out, name=title, seed=seed, counts=counts)
    from memrt.calib.summary import summarise

    _report(summarise(recorded), out, None, as_json)


def show(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of the set.", metavar="[SET]", show_default="the reference set")
    ] = None,
    *,
    png: Annotated[
        Path | None, typer.Option(help="Also write a contact sheet: every image, by level and role.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Show what a calibration set holds, after checking every file of it.

    Samples by role, episodes, cameras, and the ranges that the joints cover. `outside` is the share of judging samples
    beyond the calibrated range: if it is large, the episodes differ too much, record more of them.

    Examples:

        memrt calib show

        memrt calib show my_calibration --png sheet.png

        memrt calib show my_calibration --json
    """
    from memrt.calib.calibration_set import load_calibration_set, reference_set
    from memrt.calib.summary import summarise

    chosen = folder if folder is not None else reference_set()
    recorded = load_calibration_set(chosen)
    if png is not None:
        from memrt.calib.contact_sheet import write_contact_sheet

        write_contact_sheet(recorded, png)
    _report(summarise(recorded), chosen, png, as_json)


def _report(summary: Mapping[str, Any], folder: Path, png: Path | None, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({**summary, "folder": str(folder), "png": None if png is None else str(png)}))
        return
    console = Console()
    for table in tables(summary):
        console.print(table)
    if png is not None:
        typer.echo(f"contact sheet: {png}", err=True)


def tables(summary: Mapping[str, Any]) -> list[Table]:
    """Samples, cameras, ranges and subgoals, for people."""
    samples, episodes = summary["samples"], summary["episodes"]
    counts = Table(
        "role", "low level", "high level", "episodes", title=f"{escape(summary['name'])}, seed {summary['seed']}"
    )
    for role, found in episodes.items():
        span = f"{found['count']}: {found['first']} to {found['last']}" if found["count"] else "none"
        counts.add_row(role, str(samples["low_level"][role]), str(samples["high_level"][role]), span)
    counts.caption = f"sha256 {summary['sha256'][:16]}"
    cameras = Table("camera", "images", "size", "mean level (0..255)")
    for camera, found in summary["cameras"].items():
        cameras.add_row(escape(camera), str(found["images"]), ", ".join(found["sizes"]), f"{found['mean_level']:.0f}")
    ranges = Table("proprioception", "calibration", "gate", "outside")
    for value, by_role in summary["ranges"].items():
        outside = summary["outside"][value]
        cells = ("none" if pair is None else f"{pair[0]:+.3f} .. {pair[1]:+.3f}" for pair in by_role.values())
        ranges.add_row(value, *cells, "" if outside is None else f"{outside:.0%}")
    return [counts, cameras, ranges, _subgoals(summary["subgoals"])]


def _subgoals(counted: Mapping[str, Mapping[str, int]]) -> Table:
    low, high = counted["low_level"], counted["high_level"]
    table = Table("subgoal", "low level", "high level")
    names = sorted({*low, *high}, key=lambda text: (-low.get(text, 0) - high.get(text, 0), text))
    for text in names[:MOST_SUBGOALS]:
        table.add_row(escape(text), str(low.get(text, 0)), str(high.get(text, 0)))
    if len(names) > MOST_SUBGOALS:
        table.caption = f"and {len(names) - MOST_SUBGOALS} more"
    return table
