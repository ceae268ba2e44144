"""A finished engine graph, and what was seen of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from memrt.export.sensitivity import LayerDamage
from memrt.export.streaming.job import Feed
from memrt.export.streaming.stages import Outputs
from memrt.runtime.engine.agreement import Tensors
from memrt.runtime.manifest import TensorRecord

Dims = dict[str, tuple[int | str, ...]]  # an engine's inputs; a name stands for the dimension that varies


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A graph with its weights. `proof` is what ONNX Runtime runs here: on a CPU target the graph itself.

    `calibration` and `reference` are torch's outputs for the job's samples. For the gate samples, by name: `expected`
    is what torch gives, `found` what the proof gave; `feeds` is what it was fed for the first, the golden samples.
    `inputs` and `outputs` are the engine's, in the types of the host.
    """

    graph: Path
    proof: Path
    record: dict[str, Any]
    audit: dict[str, Any]
    damage: list[LayerDamage]
    dims: Dims
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    calibration: list[Outputs]
    reference: list[Outputs]
    feeds: list[Feed]
    expected: list[Tensors]
    found: list[Tensors]

    def golden_only(self) -> Made:
        """Without the outputs that only later engines and gates needed: hundreds of megabytes of keys and values."""
        return replace(self, calibration=[], reference=[], found=[], expected=self.expected[: len(self.feeds)])
