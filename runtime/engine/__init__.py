"""One protocol (`memrt.runtime.types.Engine`), one file per backend, one way in: `open_engine`."""

from __future__ import annotations

from pathlib import Path

from memrt.runtime.engine.onnxruntime import BoundRun, OnnxRuntimeEngine
from memrt.runtime.errors import MemrtError

__all__ = ["BoundRun", "OnnxRuntimeEngine", "open_engine"]


def open_engine(path: str | Path, *, threads: int = 1) -> OnnxRuntimeEngine:
    """Open a compiled graph; the file's suffix chooses the backend. `threads` is the engine's whole CPU budget.

    Raises `MemrtError` when no backend serves the suffix, the backend is not installed or the file does not load.
    """
    suffix = Path(path).suffix
    if suffix == ".onnx":
        return OnnxRuntimeEngine(path, threads=threads)
    raise MemrtError(
        "no backend for this engine file",
        expected="a file ending in .onnx (ONNX Runtime)",
        found=str(path),
        fix="export the policy for this target, see memrt export --help",
    )
