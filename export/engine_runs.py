"""An engine opened once, run over feeds, and described."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from memrt.runtime.engine import open_engine
from memrt.runtime.engine.agreement import Tensors
from memrt.runtime.manifest import TensorRecord
from memrt.runtime.types import TensorSpec

Feed = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class EngineRun:
    """What an engine gave for each feed, and its inputs and outputs as a manifest lists them."""

    found: list[Tensors]
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]


def run_engine(path: Path, feeds: Iterable[Feed], threads: int) -> EngineRun:
    """Open the engine at `path` once (a 4B decoder takes 5 GB) and run it; feeds may come one at a time."""
    engine = open_engine(path, threads=threads)
    try:
        return EngineRun([engine.run(feed) for feed in feeds], _records(engine.inputs), _records(engine.outputs))
    finally:
        engine.close()


def _records(specs: tuple[TensorSpec, ...]) -> tuple[TensorRecord, ...]:
    return tuple(TensorRecord(name=s.name, dtype=s.dtype, shape=s.shape) for s in specs)
