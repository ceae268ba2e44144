"""Finds NVIDIA's library for a backend, and listens to it.

`tensorrt` and `tensorrt_rtx` are two products with one Python API. Engines of one are nothing to the other, nor to
another version of the same.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Literal

from memrt.runtime.errors import MemrtError

Backend = Literal["tensorrt", "tensorrt_rtx"]

SUFFIXES: dict[str, Backend] = {".engine": "tensorrt", ".rtx": "tensorrt_rtx"}
NAMES: dict[Backend, str] = {"tensorrt": "TensorRT", "tensorrt_rtx": "TensorRT for RTX"}
_FIXES: dict[Backend, str] = {
    "tensorrt": "pip install 'memrt[tensorrt]' (on a Jetson: apt install tensorrt python3-libnvinfer)",
    "tensorrt_rtx": "pip install 'memrt[rtx]'",
}


def load_library(backend: Backend) -> Any:
    """The backend's Python module. Raises `MemrtError` when it is not installed or does not load."""
    try:
        return importlib.import_module(backend)
    except (ImportError, OSError, RuntimeError) as error:  # NVIDIA's wheels raise all three
        raise MemrtError(
            f"{NAMES[backend]} is not available",
            expected=f"the package {backend}",
            found=str(error).splitlines()[0] if str(error) else type(error).__name__,
            fix=_FIXES[backend],
        ) from error


class Messages:
    """What the library said, by severity, oldest first; bounded, and told to `listener` line by line."""

    LIMIT = 4096  # messages kept besides those of `errors` and `warnings`

    def __init__(self, listener: Callable[[str, str], None] | None = None) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self._listener = listener

    def add(self, severity: str, text: str) -> None:
        """One message. `severity` is TensorRT's name: INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE."""
        kept = {"INTERNAL_ERROR": self.errors, "ERROR": self.errors, "WARNING": self.warnings}.get(severity)
        if kept is not None and len(kept) < self.LIMIT:
            kept.append(text)
        if self._listener is not None:
            self._listener(severity, text)

    def reason(self) -> str:
        """The first error, which causes the others, on one line."""
        return " ".join(self.errors[0].split()) if self.errors else "no reason given"


def new_logger(library: Any, messages: Messages) -> Any:
    """A logger of the library that writes to `messages`. It must outlive everything made with it."""

    class Logger(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            library.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            messages.add(severity.name, text)

    return Logger()
