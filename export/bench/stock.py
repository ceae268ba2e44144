"""ONNX Runtime as its users run it: default options, only the number of threads is set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from memrt.runtime.engine.onnxruntime import tensor_specs
from memrt.runtime.engine.stacked_inputs import StackedInputs
from memrt.runtime.types import TensorSpec

Array = NDArray[Any]


class StockSession:
    """An `onnxruntime.InferenceSession` with the face of an engine. All of ONNX Runtime's own fusions are on."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime  # type: ignore[import-untyped, unused-ignore]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        # It gets the graph with an input per layer too: what that saves is no merit of int8.
        self._stacked = StackedInputs(tensor_specs(self._session.get_inputs(), path))
        self._names = [node.name for node in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Every output."""
        return dict(zip(self._names, self._session.run(self._names, self._stacked.spread(feeds)), strict=True))

    def close(self) -> None:
        """Release the session."""
        self._session = None
