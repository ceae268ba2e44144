"""`memrt bench ring`, `control`, `seam` and `resize`: the parts in C++, without any model."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from memrt.runtime.cli.progress import tell

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def register(bench: typer.Typer) -> None:
    """Add the commands to `memrt bench`."""
    bench.command("ring")(ring)
    bench.command("control")(control)
    bench.command("resize")(resize)
    bench.command("seam")(seam)


def ring(
    *,
    height: Annotated[int, typer.Option(min=1, help="Rows of the frames that are timed.")] = 480,
    width: Annotated[int, typer.Option(min=1, help="Columns of the frames that are timed.")] = 640,
    runs: Annotated[int, typer.Option(min=1, help="Timings; the median is reported.")] = 101,
    reads: Annotated[int, typer.Option(min=1, help="Frames that are checked for tears.")] = 1_000_000,
    as_json: AsJson = False,
) -> None:
    """Time the frame ring beside a bare copy, and look for torn frames under a writer at full speed.

    Example:

        memrt bench ring --json
    """
    from memrt.runtime.bench.ring import bench_ring

    report = bench_ring(height=height, width=width, runs=runs, reads=reads, progress=tell)
    if as_json:
        typer.echo(json.dumps(report, allow_nan=False))
        return
    table = Table("what", "found", title=f"frame ring, {height}x{width} pixels")
    table.add_row("write a frame", f"{report['write_ms'] * 1e3:.1f} µs")
    table.add_row("copy a frame", f"{report['copy_ms'] * 1e3:.1f} µs")
    table.add_row("write over copy", f"{report['write_over_copy']:.2f}")
    table.add_row("borrow and release", f"{report['borrow_us']:.2f} µs")
    for name, value in report["record_ns"].items():
        table.add_row(f"record an event: {name.replace('_', ', ')}", f"{value:.0f} ns")
    table.add_row("torn reads", f"{report['torn_reads']} of {reads} ({report['frames_seen']} different frames)")
    Console().print(table)


def control(
    *,
    rate: Annotated[float, typer.Option(min=1.0, max=4000.0, help="Ticks per second.")] = 1000.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="Length of one run of one loop.")] = 10.0,
    runs: Annotated[int, typer.Option(min=1, help="Runs of each loop; the median of their p99 is reported.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Time how late the control thread wakes, beside the same loop in Python, while a Python thread computes.

    Example:

        memrt bench control --seconds 30 --json
    """
    from memrt.runtime.bench.control import bench_control

    report = bench_control(rate_hz=rate, seconds=seconds, runs=runs, progress=tell)
    if as_json:
        typer.echo(json.dumps(report, allow_nan=False))
        return
    table = Table("loop", "p99 lateness ms", "real-time priority", title=f"control at {rate:g} Hz")
    for name in report["all_runs_ms"]:
        table.add_row(name, f"{report[f'{name}_p99_ms']:.4f}", "yes" if report["realtime"][name] else "no")
    table.caption = f"ours is {report['speedup']['python']:.1f}x more punctual; {report['how']}"
    Console().print(table)


def resize(
    *,
    height: Annotated[int, typer.Option(min=1, max=16384, help="Rows of the camera's picture.")] = 480,
    width: Annotated[int, typer.Option(min=1, max=16384, help="Columns of the camera's picture.")] = 640,
    size: Annotated[int, typer.Option(min=1, max=4096, help="Side of the padded square a policy sees.")] = 224,
    runs: Annotated[int, typer.Option(min=1, help="Timings; the median is reported.")] = 51,
    as_json: AsJson = False,
) -> None:
    """Time the resize of a camera's picture beside Pillow's, which gives the same bytes (checked first).

    Example:

        memrt bench resize --json
    """
    from memrt.runtime.bench.resize import bench_resize

    report = bench_resize(height=height, width=width, size=size, runs=runs, progress=tell)
    if as_json:
        typer.echo(json.dumps(report, allow_nan=False))
        return
    table = Table("what", "ms", "Pillow ms", "ours is faster by", title=f"{height}x{width} to {size}x{size} pixels")
    for what, ours, pillow, name in (
        ("bilinear, padded", "ours", "pillow", "pillow"),
        ("bicubic", "bicubic_ours", "bicubic_pillow", "bicubic_pillow"),
    ):
        speedup = report["speedup"][name]
        table.add_row(what, f"{report[f'{ours}_ms']:.3f}", f"{report[f'{pillow}_ms']:.3f}", f"{speedup:.2f}x")
    table.caption = f"without vector code {report['portable_ms']:.3f} ms; {report['how']}"
    Console().print(table)


def seam(
    *,
    cases: Annotated[int, typer.Option(min=1, help="Random cases, 0.5 to 1 s of commands each.")] = 10_000,
    first: Annotated[int, typer.Option(min=0, help="Number of the first case; the number decides all of it.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Check every command against the robot's limits over random chunks, delays, seams and dropouts.

    Exits with 1 when a command left the limits or a feasible chunk was not followed.

    Example:

        memrt bench seam --cases 100000 --json
    """
    from memrt.runtime.bench.seam import bench_seam

    report = bench_seam(first=first, cases=cases, progress=tell)
    if as_json:
        typer.echo(json.dumps(report, allow_nan=False))
    else:
        table = Table("what", "found", title=f"{cases} cases, {report['counts']['commands']} commands of 1 ms")
        table.add_row("cases with a command outside the limits", str(report["violations"]))
        for name, share in report["largest_share_of_limit"].items():
            table.add_row(f"largest {name}, of its limit", f"{share:.6f}")
        table.add_row("furthest outside a joint's range", f"{report['furthest_outside_range_rad']:.1e} rad")
        table.add_row("chunks: taken, infeasible", "{chunks}, {infeasible}".format(**report["counts"]))
        for name, value in (report["tracking_rms_mrad"] or {}).items():
            table.add_row(f"rms tracking of {report['tracked_chunks']} feasible chunks, {name}", f"{value:.3f} mrad")
        Console().print(table)
    if report["violations"] or report["tracking_above_limit"]:
        raise typer.Exit(1)
