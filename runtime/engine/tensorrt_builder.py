"""Builds TensorRT engines from ONNX graphs: on a workstation for known GPUs (`tensorrt_rtx`), on a robot for its own.

Every build runs in a child process. A crash in the library is one clear error, its memory (several times the weights)
is given back and measured, and the caller's is not touched.

Networks are strongly typed: TensorRT computes in the types of the graph. It may still fold casts around a product into
the product, so what it holds the weights in is read back (`BuildReport.weight_types`) for the export's audit.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from memrt.runtime.engine.tensorrt_library import NAMES, Backend
from memrt.runtime.engine.tensorrt_profiles import Profile
from memrt.runtime.errors import MemrtError

Progress = Callable[[str], None]

WORKSPACE_BYTES = 1 << 30
# Compute capabilities that TensorRT for RTX compiles for without a GPU (1.7); others need TensorRT on the device.
AHEAD_OF_TIME_SMS = (75, 80, 86, 89, 120, 121)


class BuildRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a worker is asked to build. `sm` is empty for the GPU it runs on."""

    graph: str
    out: str
    backend: Backend
    sm: tuple[int, ...]
    profiles: tuple[Profile, ...]
    workspace_bytes: int
    timing_cache: str | None = None


class BuildReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a build gave.

    `peak_bytes`: the builder's largest resident memory. `weights_bytes`: weights on the device, by the library's own
    count, or None where it does not say. `weight_types`: elements of all constants that the compiled layers read, by
    TensorRT's type name (a constant that several profiles read counts for each); empty where that cannot be read.
    `precision_warnings`: what the library said about precision, of its `warnings`.
    """

    backend: Backend
    version: str
    sm: tuple[int, ...]
    engine_bytes: int
    sha256: str
    seconds: float
    peak_bytes: int
    weights_bytes: int | None
    weight_types: dict[str, int]
    layers: int
    profiles: int
    warnings: tuple[str, ...]
    precision_warnings: tuple[str, ...]


def build_engine_file(
    graph: Path,
    out: Path,
    *,
    backend: Backend,
    sm: Sequence[int] = (),
    profiles: Sequence[Profile] = (),
    workspace_bytes: int = WORKSPACE_BYTES,
    timing_cache: Path | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Build the engine file `out` from an ONNX `graph` (external data beside it).

    `tensorrt_rtx` needs the compute capabilities `sm` it shall run on, and no GPU; `tensorrt` builds for the GPU it
    finds and takes none. Graphs with dynamic inputs need `profiles`. `timing_cache` (full TensorRT only) is read and
    updated: it makes rebuilds quick, and the choice of kernels the same. `out` appears complete or not at all.

    Two builds of one graph with TensorRT for RTX 1.7 gave equal bytes; nothing promises it, so nobody may rely on it.

    Raises `MemrtError` when the library is missing, refuses the graph (naming the node), or crashes.
    """
    _check(graph, backend, sm)
    request = BuildRequest(
        graph=str(graph),
        out=str(out),
        backend=backend,
        sm=tuple(sm),
        profiles=tuple(profiles),
        workspace_bytes=workspace_bytes,
        timing_cache=None if timing_cache is None else str(timing_cache),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _in_child(request, progress or (lambda line: None))
    finally:
        partial_path(out).unlink(missing_ok=True)


def partial_path(out: Path) -> Path:
    """Where a worker writes until the engine is complete."""
    return out.with_name(f".{out.name}.partial")


def _check(graph: Path, backend: Backend, sm: Sequence[int]) -> None:
    if not graph.is_file():
        raise MemrtError(
            "graph is missing", expected="an ONNX file", found=f"nothing at {graph}", fix="export it again"
        )
    wrong = [number for number in sm if number not in AHEAD_OF_TIME_SMS]
    if backend == "tensorrt_rtx" and (wrong or not sm):
        raise MemrtError(
            f"{NAMES[backend]} cannot build {graph.name} for SM {', '.join(map(str, wrong)) or '(none given)'}",
            expected=f"some of SM {', '.join(map(str, AHEAD_OF_TIME_SMS))}",
            found=list(sm),
            fix="choose those, or a target that builds on the device with full TensorRT",
        )
    if backend == "tensorrt" and sm:
        raise MemrtError(
            f"{NAMES[backend]} builds for the GPU of the computer it runs on",
            expected="no compute capabilities",
            found=list(sm),
            fix="run memrt build on the robot's computer",
        )


def _in_child(request: BuildRequest, progress: Progress) -> BuildReport:
    """Run the worker; its lines are JSON events, whatever else the library prints goes to the error tail."""
    command = [sys.executable, "-m", "memrt.runtime.engine.tensorrt_worker"]
    report: BuildReport | None = None
    refusal: MemrtError | None = None
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it died before it read: its exit status tells more
                child.stdin.write(msgspec.json.encode(request))
                child.stdin.close()
            for line in child.stdout:
                event = _event(line)
                if "progress" in event:
                    progress(str(event["progress"]))
                elif "report" in event:
                    report = msgspec.convert(event["report"], BuildReport)
                elif "error" in event:
                    refusal = MemrtError(**event["error"])
            code = child.wait()
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
        errors.seek(0)
        tail = errors.read().decode(errors="replace").strip().splitlines()[-1:]
    if refusal is not None:
        raise refusal
    if code != 0 or report is None:
        raise MemrtError(
            f"the {NAMES[request.backend]} builder crashed on {Path(request.graph).name}",
            expected="an engine or a reason",
            found=_death(code) + "".join(f": {line}" for line in tail),
            fix="free memory (a build needs about 3.2 times the weights), or choose a smaller precision",
        )
    return report


def _event(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _death(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else f"signal {-code}"
    return f"{name}, probably out of memory" if name == "SIGKILL" else name
