"""One protocol (`memrt.runtime.types.Engine`), one file per backend, one way in: `open_engine`."""

from __future__ import annotations

from pathlib import Path

from memrt.runtime.engine.onnxruntime import BoundRun, OnnxRuntimeEngine
from memrt.runtime.engine.tensorrt import TensorRtEngine
from memrt.runtime.engine.tensorrt_library import NAMES, SUFFIXES
from memrt.runtime.errors import MemrtError

__all__ = ["BoundRun", "OnnxRuntimeEngine", "TensorRtEngine", "open_engine"]


def open_engine(
    path: str | Path, *, threads: int = 1, high_priority: bool = False, runtime_cache: Path | None = None
) -> OnnxRuntimeEngine | TensorRtEngine:
    """Open a compiled graph; the file's suffix chooses the backend: `.onnx`, `.engine` or `.rtx`.

    `threads` is the engine's whole CPU budget; `high_priority` and `runtime_cache` matter on a GPU only
    (`TensorRtEngine`). Raises `MemrtError` when no backend serves the suffix, the backend is not installed, there is no
    GPU for it, or the file does not load.
    """
    suffix = Path(path).suffix
    if suffix == ".onnx":
        return OnnxRuntimeEngine(path, threads=threads)
    if suffix in SUFFIXES:
        return TensorRtEngine(path, high_priority=high_priority, runtime_cache=runtime_cache)
    kinds = [".onnx (ONNX Runtime)", *(f"{ending} ({NAMES[backend]})" for ending, backend in SUFFIXES.items())]
    raise MemrtError(
        "no backend for this engine file",
        expected=f"a file ending in {', '.join(kinds)}",
        found=str(path),
        fix="export the policy for this target, see memrt export --help",
    )
