"""Builds one engine of a bundle: gate the fp32 graph, quantise it if asked, gate that too, keep golden samples."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from memrt.calib.calibration_set import evenly
from memrt.export.engine_runs import Feed, run_engine
from memrt.export.gates import gate, golden_file, write_golden
from memrt.export.quantise import quantise_int8
from memrt.export.quantise_blocks import quantise_int8_blocks
from memrt.export.reproducible import canonicalise, graph_bytes, save_model
from memrt.export.target import Target
from memrt.runtime.engine.agreement import Tensors
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import EngineRecord

MAX_GATE_FEEDS = 64  # per engine: all their outputs are held in memory at once
GOLDEN_SAMPLES = 2
MAX_GOLDEN_BYTES = 32 << 20  # of one engine, before compression; at least one sample is kept


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """An engine to be built. `file` is its path in the bundle, such as `ll/step.onnx`.

    `reference` computes the torch model's outputs for a feed, by output name.
    """

    name: str
    file: str
    reference: Callable[[Feed], dict[str, NDArray[Any]]]
    calibration: Sequence[Feed]
    gate: Sequence[Feed]


def canonicalise_file(path: Path) -> None:
    """Make a graph as the exporter wrote it reproducible, in place."""
    import onnx

    model = onnx.load(str(path))
    canonicalise(model)
    path.unlink()
    path.with_name(f"{path.name}.data").unlink(missing_ok=True)
    save_model(model, path)


def build_engine(part: Part, staging: Path, precision: str, target: Target, *, threads: int = 1) -> EngineRecord:
    """Turn the canonical fp32 graph at `staging / part.file` into the bundle's engine; returns its manifest entry.

    Writes `golden/<engine>.npz`. Raises `MemrtError` when a gate or the quantisation's audit fails.
    """
    if not part.gate:
        raise MemrtError(
            f"no gate samples for {part.name}",
            expected="recorded samples with the role `gate`",
            found="none",
            fix="record a calibration set with held-out episodes",
        )
    path = staging / part.file
    feeds = evenly(part.gate, MAX_GATE_FEEDS)
    reference = [part.reference(feed) for feed in feeds]
    run = run_engine(path, feeds, threads)
    record: dict[str, Any] = gate(part.name, "fp32", reference, run.found)
    if precision == "int8":
        quantised = path.with_suffix(".int8.onnx")
        report = _quantise(part, path, quantised, target, threads)
        run = run_engine(quantised, feeds, threads)
        record = {
            **gate(part.name, "int8", reference, run.found),
            "fp32": {key: record[key] for key in ("cosine", "relative_l2")},
            "quantisation": report,
        }
        _replace_graph(quantised, path)
    golden = golden_file(part.name)
    kept = _golden_count(feeds, reference)
    write_golden(staging / golden, feeds[:kept], reference[:kept])
    return EngineRecord(
        file=part.file,
        precision=precision,
        inputs=run.inputs,
        outputs=run.outputs,
        gate={**record, "golden": golden, "bytes": graph_bytes(path)},
    )


def _quantise(part: Part, source: Path, out: Path, target: Target, threads: int) -> dict[str, Any]:
    settings = target.int8_settings()
    exclude = settings.keep_fp32.get(part.name, ())
    if part.name in settings.blockwise:
        return quantise_int8_blocks(source, out, exclude=exclude)
    return quantise_int8(
        source,
        out,
        part.calibration,
        exclude=exclude,
        method=settings.method,
        smoothing=settings.smoothing,
        reduce_range=settings.reduce_range,
        threads=threads,
    )


def _replace_graph(source: Path, destination: Path) -> None:
    data = source.with_name(f"{source.name}.data")
    if data.is_file():  # external data is found by the name that the graph holds
        import onnx

        save_model(onnx.load(str(source)), destination)
        source.unlink()
        data.unlink()
        return
    destination.with_name(f"{destination.name}.data").unlink(missing_ok=True)
    shutil.move(source, destination)


def _golden_count(feeds: Sequence[Feed], outputs: Sequence[Tensors]) -> int:
    size = 0
    for count, (feed, output) in enumerate(zip(feeds[:GOLDEN_SAMPLES], outputs, strict=False)):
        size += sum(array.nbytes for array in (*feed.values(), *output.values()))
        if count and size > MAX_GOLDEN_BYTES:
            return count
    return min(GOLDEN_SAMPLES, len(feeds))
