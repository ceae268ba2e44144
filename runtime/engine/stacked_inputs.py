"""Graph inputs `keys.0`, `keys.1`, … seen from outside: one array `keys` whose rows they are.

A graph that is given the whole array has to cut its rows out, which ONNX Runtime does by copying them: 226 MB for every
token of a 4B decoder. Rows of an array in memory are views.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from memrt.runtime.types import TensorSpec

Array = NDArray[Any]
_ROW = re.compile(r"(.+)\.(\d+)")


class StackedInputs:
    """What a caller passes (`specs`), and how it becomes what the graph takes (`spread`)."""

    def __init__(self, graph: Sequence[TensorSpec]) -> None:
        """`graph`: the graph's own inputs. Rows that are not all there, or not alike, remain inputs of their own."""
        stacks: dict[str, list[TensorSpec]] = {}
        for spec in graph:
            if row := _ROW.fullmatch(spec.name):
                stacks.setdefault(row[1], []).append(spec)
        names = {spec.name for spec in graph}
        self._rows = {stem: len(rows) for stem, rows in stacks.items() if stem not in names and _alike(stem, rows)}
        specs: dict[str, TensorSpec] = {}
        for spec in graph:
            stem = spec.name.rpartition(".")[0]
            rows = self._rows.get(stem)
            if rows is None:
                specs[spec.name] = spec
            else:
                specs[stem] = TensorSpec(stem, spec.dtype, (rows, *spec.shape))
        self.specs = tuple(specs.values())

    def spread(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Views of the rows in place of the arrays that stack them; everything else as it is."""
        spread: dict[str, Array] = {}
        for name, array in feeds.items():
            if name in self._rows:
                spread |= {f"{name}.{index}": array[index] for index in range(self._rows[name])}
            else:
                spread[name] = array
        return spread


def _alike(stem: str, rows: Sequence[TensorSpec]) -> bool:
    """Whether the inputs below `stem` are numbered from 0 without a gap and have one dtype and shape."""
    complete = {spec.name for spec in rows} == {f"{stem}.{index}" for index in range(len(rows))}
    return complete and len({(spec.dtype, spec.shape) for spec in rows}) == 1
