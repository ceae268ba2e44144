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
        named = {spec.name: spec for spec in graph}
        self._rows: dict[str, int] = {}
        specs: list[TensorSpec] = []
        for spec in graph:
            row = _ROW.fullmatch(spec.name)
            rows = _alike(row[1], named) if row else 0
            if row is None or not rows:
                specs.append(spec)
            elif row[1] not in self._rows:
                self._rows[row[1]] = rows
                specs.append(TensorSpec(row[1], spec.dtype, (rows, *spec.shape)))
        self.specs = tuple(specs)

    def spread(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Views of the rows in place of the arrays that stack them; everything else as it is."""
        spread: dict[str, Array] = {}
        for name, array in feeds.items():
            if name in self._rows:
                spread |= {f"{name}.{index}": array[index] for index in range(self._rows[name])}
            else:
                spread[name] = array
        return spread


def _alike(stem: str, named: Mapping[str, TensorSpec]) -> int:
    """The number of rows below `stem`: 0 unless they are numbered from 0 without a gap and have one dtype and shape."""
    rows = [spec for name, spec in named.items() if (row := _ROW.fullmatch(name)) and row[1] == stem]
    complete = {spec.name for spec in rows} == {f"{stem}.{index}" for index in range(len(rows))}
    same = len({(spec.dtype, spec.shape) for spec in rows}) == 1
    return len(rows) if complete and same and stem not in named else 0
