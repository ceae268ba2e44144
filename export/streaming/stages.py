"""A forward pass that halts before every unit of its network, so that only one unit's weights are ever in memory.

A graph module writes its forward pass once, as a generator `stages(*inputs)`: it yields the name of the submodule it is
about to call, with the activations that enter it, and returns its outputs. `forward` runs it to the end (`exhaust`),
which is what gets exported. A streamed pass holds one such generator per sample, all halted at the same place: it
mounts the unit's weights, moves every generator by one unit, and takes the weights away again.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Outputs = tuple[Tensor, ...]
Stages = Generator[tuple[str, Tensor], None, Outputs]


class Staged(Protocol):
    """A graph module with a staged forward pass."""

    def stages(self, *inputs: Tensor) -> Stages:
        """Yield each unit's name and what enters it, before calling it; return the graph's outputs."""
        ...


def exhaust(stages: Stages) -> Outputs:
    """Run a staged pass to its end."""
    while True:
        try:
            next(stages)
        except StopIteration as end:
            outputs: Outputs = end.value
            return outputs


class LockStep:
    """One staged pass per sample, moved together. The samples may differ in length."""

    def __init__(self, graph: Staged, samples: Sequence[Sequence[Tensor]]) -> None:
        """Every sample halts before its first unit; `outputs` are there once the last unit has run."""
        self._passes = [graph.stages(*sample) for sample in samples]
        self.outputs: list[Outputs] = []
        with torch.no_grad():
            self._halted = [next(stages) for stages in self._passes]

    def __len__(self) -> int:
        return len(self._passes)

    @property
    def unit(self) -> str | None:
        """The unit that all samples wait for; None at the end."""
        waiting = {name for name, _ in self._halted}
        assert len(waiting) < 2, f"samples wait for different units: {sorted(waiting)}"
        return next(iter(waiting), None)

    @property
    def activations(self) -> list[Tensor]:
        """What enters that unit, per sample."""
        return [entering for _, entering in self._halted]

    def advance(self) -> None:
        """Run the next unit on every sample."""
        halted: list[tuple[str, Tensor]] = []
        with torch.no_grad():
            for stages in self._passes:
                try:
                    halted.append(next(stages))
                except StopIteration as end:
                    self.outputs.append(end.value)
        assert not (halted and self.outputs), "samples end at different units"
        self._halted = halted


@contextmanager
def mounted(graph: nn.Module, path: str, unit: nn.Module) -> Iterator[nn.Module]:
    """Put `unit` in the place of the graph's submodule `path` for a while."""
    parent_path, _, name = path.rpartition(".")
    parent: Any = graph.get_submodule(parent_path)
    before = getattr(parent, name)
    setattr(parent, name, unit)
    try:
        yield unit
    finally:
        setattr(parent, name, before)
