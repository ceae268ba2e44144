"""One engine's streamed export: what is traced, what is streamed through it, and what its gates are fed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from memrt.export.checkpoints.source import WeightSource, materialise
from memrt.export.streaming.skeleton import DynamicShapes, Skeleton, trace
from memrt.export.streaming.stages import Outputs
from memrt.export.streaming.stream import Sample, Unit

Array = NDArray[Any]
Feed = dict[str, Array]


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """An engine to be made. `name` is the engine's (`hl/decoder`), `file` its graph's path in the bundle.

    `graph` has fake weights; `units` are all of it, in its order. Samples are the graph's inputs, in the order of
    `inputs`; `feed` makes of one what the engine is fed (a cache of its full capacity, say).
    """

    name: str
    file: str
    graph: nn.Module
    units: Sequence[Unit]
    inputs: Sequence[str]
    outputs: Sequence[str]
    example: Sequence[Tensor]
    shapes: DynamicShapes | None
    calibration: Sequence[Sample]
    gate: Sequence[Sample]
    feed: Callable[[Sample], Feed]
    comparable: Callable[[Outputs], Outputs] = lambda outputs: outputs  # the engine's share of the streamed outputs

    def skeleton(self) -> Skeleton:
        """The engine's graph without weights."""
        return trace(self.graph, self.example, self.inputs, self.outputs, self.shapes)

    @property
    def dims(self) -> dict[str, tuple[int | str, ...]]:
        """The inputs' sizes; the varying one is `length`."""
        varying = self.shapes or (None,) * len(self.inputs)
        return {
            name: tuple("length" if axes and axis in axes else size for axis, size in enumerate(example.shape))
            for name, example, axes in zip(self.inputs, self.example, varying, strict=True)
        }


def plain_feed(inputs: Sequence[str]) -> Callable[[Sample], Feed]:
    """Feeds that are the samples themselves."""

    def feed(sample: Sample) -> Feed:
        return {name: np.ascontiguousarray(value.numpy()) for name, value in zip(inputs, sample, strict=True)}

    return feed


def streamed_unit(
    path: str, model: nn.Module, sources: Sequence[str], build: Callable[..., nn.Module], weights: WeightSource
) -> Unit:
    """The unit that `build` makes of the submodules `sources` of `model` (on the meta device), filled from `weights`.

    The submodules are copied first: the model stays empty, and a unit's weights are gone when the unit is.
    """

    def built() -> nn.Module:
        parts = []
        for source in sources:
            part = copy.deepcopy(model.get_submodule(source))
            materialise(part, weights, f"{source}.")
            parts.append(part.eval())
        with torch.no_grad():
            return build(*parts)

    return Unit(path.rstrip("."), built)


def named(outputs: Sequence[str], values: Sequence[Tensor]) -> Mapping[str, Array]:
    """A graph's outputs by name."""
    return {name: value.numpy() for name, value in zip(outputs, values, strict=True)}
