"""`memrt export`: turn a policy's weights into a bundle of quantised, gated engines."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from memrt.runtime.bench.hardware import usable_cores
from memrt.runtime.bundle import Bundle, load_bundle
from memrt.runtime.cli.extras import needs_extra
from memrt.runtime.cli.progress import tell
from memrt.runtime.errors import MemrtError


class Gate(str, Enum):
    """How a quantised bundle is compared with its fp32 twin before it gets its name."""

    SIM = "sim"
    EPISODES = "episodes"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("export")(export)


class Scheme(str, Enum):
    """What the weights of products are stored in."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    INT4 = "int4"
    FP8 = "fp8"
    NVFP4 = "nvfp4"


def export(
    policy: Annotated[
        str | None,
        typer.Argument(
            help="The policy YAML, or a packaged policy's name. With --checkpoint it may be left out.",
            metavar="[POLICY.yaml]",
            show_default=False,
        ),
    ] = None,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Bundle folder to write; an older bundle is replaced.")],
    target: Annotated[
        str, typer.Option(help="What to export for: cpu, rtx, orin, thor, h200, or a target YAML.")
    ] = "cpu",
    checkpoint: Annotated[
        str | None,
        typer.Option(help="Export this one checkpoint, a VLM or a π0.5: a folder, or random:<name> as a rehearsal."),
    ] = None,
    adapter: Annotated[
        str | None, typer.Option(help="LoRA adapter of the VLM: a folder that peft saved, or random:r<rank>.")
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="Blend the VLM with these pretrained weights (MemER's interpolation).")
    ] = None,
    fine_tuned_share: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Share of the fine-tuned weights in the blend; MemER: 0.8.")
    ] = None,
    norm_stats: Annotated[
        Path | None, typer.Option(help="norm_stats.json of a π0.5 that does not bring its own.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="PaliGemma's SentencePiece model, for a π0.5 without a tokenizer.")
    ] = None,
    precision: Annotated[
        Scheme | None,
        typer.Option(help="Store all products in this type.", show_default="int8 on cpu, else the target's plan"),
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(help="Mixed-precision plan to use, such as one that a refused export wrote.")
    ] = None,
    rtc: Annotated[
        bool, typer.Option("--rtc", help="Also export π0.5's step for real-time chunking (weights trained with it).")
    ] = False,
    reduced_range: Annotated[
        bool,
        typer.Option("--reduced-range", help="int8 weights in 7 bits: full speed on x86 CPUs without VNNI."),
    ] = False,
    memory_gib: Annotated[
        float | None, typer.Option(help="The device's memory in GiB.", show_default="the target's")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Folder that holds the policy's weights.", show_default="the committed ones")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Recorded episodes to calibrate with.", show_default="the committed ones")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, help="Recorded moments per role that are streamed through a checkpoint.")
    ] = 4,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Computing threads for checkpoints.", show_default="all cores")
    ] = None,
    gate: Annotated[
        Gate | None,
        typer.Option(
            help="Also compare behaviour with fp32: success in the simulator (minutes), or subgoals and actions on "
            "recorded episodes.",
            show_default="graphs only",
        ),
    ] = None,
    gate_seeds: Annotated[
        int, typer.Option(min=1, help="Episodes of --gate sim; fewer than 35 cannot show anything.")
    ] = 100,
    gate_task: Annotated[str, typer.Option(help="Task of --gate sim.")] = "PickXtimes",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Turn a policy's weights, or one checkpoint, into a bundle of quantised engines.

    Each engine must agree with the torch model it came from, on its worst sample, or nothing is written. With --gate
    the finished bundle must also behave as one exported in fp32: --gate sim refuses unless the episodes show that at
    most 10 points of success are lost (upper end of the paired 95 % interval). The bundle holds what was measured, in
    report.html and report.json.

    Checkpoints of any size are streamed, one layer in memory at a time; an interrupted export goes on where it was.
    TensorRT for RTX engines are built here, without a GPU; for Jetson and data-centre GPUs the bundle carries recipes
    that `memrt build` follows on the device.

    Examples:

        memrt export configs/policies/am_grounded.yaml -o my_bundle

        memrt export my_policy.yaml -o my_bundle --weights runs/reference/weights

        memrt export am_grounded -o my_bundle --gate sim --gate-seeds 100

        memrt export my_policy.yaml --checkpoint ./Qwen3-VL-4B-Instruct --adapter ./my_lora --target rtx -o my_bundle

        memrt export --checkpoint random:pi05 --target cpu --precision int8 -o rehearsal
    """
    if policy is None and checkpoint is None:
        raise MemrtError(
            "nothing to export", expected="a policy or --checkpoint", found="neither", fix="try memrt export --help"
        )
    started = time.monotonic()

    streamed = checkpoint is not None or target != "cpu" or plan is not None or rtc
    if not streamed and precision in {None, Scheme.INT8, Scheme.FP32}:
        with needs_extra("export", "cpu"):
            from memrt.export.pipeline import export_policy

        assert policy is not None
        export_policy(
            policy,
            out,
            precision=(precision or Scheme.INT8).value,
            weights_root=weights,
            calibration=calibration,
            reduced_range=reduced_range,
            behaviour=behaviour_gate(gate, gate_seeds, gate_task, calibration, tell),
            progress=tell,
        )
    else:
        _no_behaviour_gate(gate)
        with needs_extra("export", "cpu"):
            from memrt.export.checkpoint_export import Request, export_checkpoints

        request = Request(
            policy=policy,
            out=out,
            target=target,
            checkpoint=checkpoint,
            adapter=adapter,
            pretrained=pretrained,
            fine_tuned_share=fine_tuned_share,
            norm_stats=norm_stats,
            tokenizer=tokenizer,
            weights_root=weights,
            precision=None if precision is None else precision.value,
            plan=plan,
            calibration=calibration,
            samples=samples,
            memory_gib=memory_gib,
            threads=threads or usable_cores(),
            step_rtc=rtc,
            reduced_range=reduced_range,
        )
        export_checkpoints(request, tell)
    bundle = load_bundle(out, verify=False)
    seconds, peak = time.monotonic() - started, peak_bytes()
    if as_json:
        print(json.dumps(summary(bundle, seconds, peak)))
        return
    Console().print(as_table(bundle))
    tell(f"{seconds:.0f} s, peak memory {peak / 2**30:.1f} GiB")


def peak_bytes() -> int:
    """The largest resident memory of this process and of any child, each by itself."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) * 1024


def summary(bundle: Bundle, seconds: float, peak: int) -> dict[str, Any]:
    """What `--json` prints."""
    manifest = bundle.manifest
    return {
        "bundle": str(bundle.path),
        "policy": manifest.name,
        "precision": manifest.precision,
        "target": manifest.sources.get("target"),
        "engines": {
            name: {"file": engine.file, "precision": engine.precision, **engine.gate}
            for name, engine in sorted(manifest.engines.items())
        },
        "gates": manifest.sources.get("gates", {}),
        "bytes": sum(bundle.file(relative).stat().st_size for relative in manifest.files),
        "proven_on_device": manifest.proven_on_device,
        "seconds": round(seconds, 1),
        "peak_bytes": peak,
        "measured_on": "CPU",
    }


def _no_behaviour_gate(gate: Gate | None) -> None:
    if gate is not None:
        raise MemrtError(
            f"--gate {gate.value} of a streamed checkpoint",
            expected="a reference policy, whose fp32 twin runs here",
            found="a checkpoint, target or plan that is streamed",
            fix="compare two bundles with memrt fidelity --gate, or leave --gate out",
        )


def behaviour_gate(
    gate: Gate | None, seeds: int, task: str, calibration: Path | None, tell: Callable[[str], None]
) -> Callable[[Path, Path], dict[str, Any]] | None:
    """The comparison of a bundle with its fp32 twin that `--gate` asks for.

    Raises MemrtError for too few seeds and for an unknown task.
    """
    if gate is None:
        return None
    if gate is Gate.EPISODES:
        from memrt.export.episodes_gate import episodes_gate

        return lambda bundle, reference: episodes_gate(bundle, reference, calibration)
    with needs_extra("sim", "cpu"):
        from memrt.export.sim_gate import FIRST_SEED, check_seeds, sim_gate
        from memrt.sim.tasks import make_task

    chosen = range(FIRST_SEED, FIRST_SEED + seeds)
    check_seeds(chosen)  # the export takes minutes: refuse before it
    make_task(task, FIRST_SEED)
    workers = usable_cores()  # the outcome does not depend on it
    return lambda bundle, reference: sim_gate(bundle, reference, task, chosen, workers=workers, progress=tell)


def as_table(bundle: Bundle) -> Table:
    """One row per engine: what it became and what its gate measured."""
    table = Table("engine", "precision", "MB", "gate", title=f"{bundle.manifest.name} -> {bundle.path}")
    for name, engine in sorted(bundle.manifest.engines.items()):
        measured = {key: value for key, value in engine.gate.items() if isinstance(value, int | float)}
        gate = ", ".join(f"{key} {value:.4g}" for key, value in sorted(measured.items()))
        table.add_row(name, engine.precision, f"{_megabytes(bundle, engine.file):.1f}", gate)
    total = sum(_megabytes(bundle, relative) for relative in bundle.manifest.files)
    table.caption = f"{len(bundle.manifest.files)} files, {total:.1f} MB, {bundle.manifest.proven_on_device}"
    return table


def _megabytes(bundle: Bundle, relative: str) -> float:
    return bundle.file(relative).stat().st_size / 1e6
