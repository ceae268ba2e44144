"""`memrt bench`: our engines and our real-time core beside what a user would otherwise run, on this CPU, in one run."""

from __future__ import annotations

import json
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from memrt.runtime.bench.hardware import usable_cores
from memrt.runtime.cli import bench_core_command, bench_low_level_command
from memrt.runtime.cli.extras import needs_extra
from memrt.runtime.cli.progress import tell

Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads of each implementation.", show_default="this computer's cores")
]
Runs = Annotated[int, typer.Option(min=1, help="Rounds that count; the median is reported.")]
Work = Annotated[
    Path | None,
    typer.Option(
        help="Where engines are kept and found again, by a hash of weights, settings and code. Up to 20 GB.",
        show_default="memrt/bench in the user's cache folder",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


class Precision(str, Enum):
    """How the decoder's weights are stored."""

    INT4 = "int4"
    INT8 = "int8"


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    bench = typer.Typer(
        help="Measure engines and the real-time core beside what they replace, on this computer's CPU.",
        no_args_is_help=True,
    )
    bench.command("step")(step)
    bench.command("decode")(decode)
    bench.command("high-level")(high_level)
    bench_core_command.register(bench)
    bench_low_level_command.register(bench)
    app.add_typer(bench, name="bench")


def step(
    *,
    size: Annotated[str, typer.Option(help="pi05 or pi05-tiny, with random weights.")] = "pi05",
    threads: Threads = None,
    runs: Runs = 7,
    call: Annotated[
        bool, typer.Option("--call", help="Also whole calls: three views, prefix, ten steps. 13 GiB of memory.")
    ] = False,
    work: Work = None,
    as_json: AsJson = False,
) -> None:
    """Time a denoise step of π0.5's action expert: int8 engine, PyTorch fp32, ONNX Runtime fp32, in turns.

    Same inputs (968 prefix tokens, 50 actions at full size) and threads for all; `relative_l2` says how far our
    numbers are from PyTorch's.

    Examples:

        memrt bench step --json

        memrt bench step --call --threads 4
    """
    with needs_extra("export", "train", "cpu"):
        from memrt.export.bench.call import bench_call, check_call
        from memrt.export.bench.engines import default_work_folder
        from memrt.export.bench.pi05 import BenchPi05
        from memrt.export.bench.step import bench_step

    folder, count = work or default_work_folder(), threads or usable_cores()
    if call:
        check_call(BenchPi05.open(size), folder)  # refuse before minutes of work, not after
    report = bench_step(size, threads=count, runs=runs, work=folder, progress=tell)
    if call:
        report["call"] = bench_call(size, threads=count, runs=runs, work=folder, progress=tell)
    if as_json:
        typer.echo(json.dumps(report, allow_nan=False))
        return
    Console().print(step_table(report, f"denoise step of {size}"))
    if call:
        Console().print(step_table(report["call"], f"whole call of {size}"))


def decode(
    *,
    size: Annotated[
        str, typer.Option(help="qwen3-vl-4b, qwen2.5-vl-7b, qwen3-vl-tiny or qwen2.5-vl-tiny, with random weights.")
    ] = "qwen3-vl-4b",
    tokens: Annotated[int, typer.Option(min=2, max=256, help="New tokens per answer.")] = 16,
    precision: Annotated[Precision, typer.Option(help="The decoder's weights.")] = Precision.INT4,
    threads: Threads = None,
    runs: Runs = 7,
    work: Work = None,
    as_json: AsJson = False,
) -> None:
    """Time greedy answers of a VLM about one image: our engines, and transformers' `generate` in bf16 and fp32.

    The faster of transformers' two is the peer. fp32 is left out where it does not fit into memory.

    Examples:

        memrt bench decode --json

        memrt bench decode --size qwen2.5-vl-7b --tokens 8 --runs 3
    """
    with needs_extra("export", "train", "cpu"):
        from memrt.export.bench.decode import bench_decode
        from memrt.export.bench.engines import default_work_folder

    report = bench_decode(
        size,
        tokens=tokens,
        runs=runs,
        threads=threads or usable_cores(),
        precision=precision.value,
        work=work or default_work_folder(),
        progress=tell,
    )
    if as_json:
        typer.echo(json.dumps(report, allow_nan=False))
    else:
        Console().print(decode_table(report))


def high_level(
    *,
    size: Annotated[
        str,
        typer.Option(
            help="reference (the reference policy's VLM), or with random weights qwen3-vl-4b, qwen2.5-vl-7b, "
            "qwen3-vl-tiny or qwen2.5-vl-tiny."
        ),
    ] = "reference",
    layers: Annotated[
        int | None, typer.Option(min=1, help="Decoder layers; the vision tower stays whole.", show_default="all")
    ] = None,
    calls: Annotated[int, typer.Option(min=1, help="Calls that count, one after the other.")] = 20,
    tokens: Annotated[int, typer.Option(min=2, max=128, help="New tokens per answer.")] = 32,
    precision: Annotated[Precision, typer.Option(help="The decoder's weights.")] = Precision.INT8,
    minutes: Annotated[
        int | None,
        typer.Option(min=2, help="Instead: the cost of a call after one minute of an episode and after so many."),
    ] = None,
    threads: Threads = None,
    work: Work = None,
    as_json: AsJson = False,
) -> None:
    """Time a keyframe policy's calls, 8 keyframes and 8 recent frames: ours, and transformers' `generate`.

    Calls follow each other as MemER's do, once per second on the sampling grid. Ours keeps what it computed; it is also
    measured over the same engines with nothing kept. transformers encodes everything at every call, in bf16 and fp32.

    Examples:

        memrt bench high-level --json

        memrt bench high-level --size qwen3-vl-4b --layers 8 --calls 5

        memrt bench high-level --minutes 60
    """
    with needs_extra("export", "train", "cpu"):
        from memrt.export.bench.engines import default_work_folder
        from memrt.export.bench.high_level import bench_high_level
        from memrt.export.bench.long_episode import bench_long_episode

    measure = bench_high_level if minutes is None else partial(bench_long_episode, minutes=minutes)
    report = measure(
        size,
        layers=layers,
        calls=calls,
        tokens=tokens,
        threads=threads or usable_cores(),
        precision=precision.value,
        work=work or default_work_folder(),
        progress=tell,
    )
    if as_json:
        typer.echo(json.dumps(report, allow_nan=False))
    else:
        Console().print(high_level_table(report) if minutes is None else episode_table(report))


def step_table(report: dict[str, Any], title: str) -> Table:
    """One row per implementation: medians, and how much faster ours is."""
    parts = report.get("parts_ms", {})
    columns = list(next(iter(parts.values()), {}))
    table = Table("implementation", "ms", *columns, "ours is faster by", title=title)
    for name in report["all_runs_ms"]:
        speedup = report["speedup"].get(name)
        by_part = [f"{parts[name][column]:.1f}" for column in columns]
        table.add_row(name, f"{report[f'{name}_ms']:.1f}", *by_part, "" if speedup is None else f"{speedup:.2f}x")
    table.caption = f"{report['how']}; relative L2 of ours against PyTorch {report['relative_l2']:.2e}"
    return table


def decode_table(report: dict[str, Any]) -> Table:
    """One row per implementation."""
    title = f"{report['size']}, {report['precision']}: {report['tokens']} tokens after {report['prompt_tokens']}"
    table = Table("implementation", "ms per token", "tokens/s", "prompt ms", "ours is faster by", title=title)
    for name, rate in report["tokens_per_s"].items():
        speedup = report["speedup"].get(name)
        table.add_row(
            name,
            f"{report[f'{name}_ms']:.1f}",
            f"{rate:.2f}",
            f"{report['prefill_ms'][name]:.0f}",
            "" if speedup is None else f"{speedup:.2f}x",
        )
    left_out = "".join(f"; {name} not run: {why}" for name, why in report["not_run"].items())
    table.caption = (
        f"{report['how']}; relative L2 of the prompt's logits against {report['compared_with']} "
        f"{report['relative_l2']:.2e}{left_out}"
    )
    return table


def high_level_table(report: dict[str, Any]) -> Table:
    """One row per implementation, ours without reuse among them."""
    title = (
        f"{report['size']}, {report['decoder_layers']} of {report['decoder_layers_of_the_full_model']} decoder layers, "
        f"{report['precision']}: {report['tokens']} tokens after {max(report['prompt_tokens'])}"
    )
    parts = report["parts_ms"]
    columns = list(parts["ours"])
    labels = {"without_reading_ahead": "ours, nothing read ahead", "without_reuse": "ours, nothing kept"}
    table = Table("implementation", "ms per call", *columns, "ours is faster by", title=title)
    for name in parts:
        speedup = report["speedup"].get(name)
        by_part = [f"{parts[name][column]:.0f}" for column in columns]
        label = labels.get(name, name)
        table.add_row(label, f"{report[f'{name}_ms']:.0f}", *by_part, "" if speedup is None else f"{speedup:.2f}x")
    left_out = "".join(f"; {name} not run: {why}" for name, why in report["not_run"].items())
    table.caption = (
        f"{report['how']}; medians of {report['runs']} calls; tokens as {report['compared_with']}'s "
        f"{report['identical_tokens']:.0%}; before the call {report['before_the_call_ms']:.0f} ms, with which ours is "
        f"{report['speedup']['total']:.2f}x faster{left_out}"
    )
    return table


def episode_table(report: dict[str, Any]) -> Table:
    """A young and an old episode side by side."""
    title = f"{report['size']}, {report['precision']}: an episode of {report['minutes']} minutes"
    table = Table("", "after 1 minute", f"after {report['minutes']} minutes", "ratio", title=title)
    rows = (("ms per call", "call_ms", "call"), ("of it memory and store", "memory_ms", None))
    for label, key, ratio in (
        *rows,
        ("resident MiB", "resident_mib", "resident"),
        ("frames kept", "kept_frames", None),
    ):
        found = report[key]
        cells = [f"{found[age]:.2f}" if isinstance(found[age], float) else str(found[age]) for age in ("young", "old")]
        table.add_row(label, *cells, "" if ratio is None else f"{report['ratio'][ratio]:.3f}")
    table.caption = f"{report['how']}; medians of {report['runs']} calls"
    return table
