"""The weights of an engine as one file that its graphs refer to (ONNX external data), written tensor by tensor."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

ALIGNMENT = 4096  # a page: the tensor can be memory-mapped where it lies


@dataclass(frozen=True, slots=True)
class Extent:
    """Where one tensor lies, and what it is."""

    offset: int
    length: int
    dtype: ir.DataType
    shape: tuple[int, ...]


class DataFile:
    """Appends tensors in the order they come; the same order gives the same bytes."""

    def __init__(self, path: Path) -> None:
        """Create `path`, or empty it."""
        self.path = path
        self.extents: dict[str, Extent] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")

    def append(self, name: str, data: bytes | memoryview, dtype: ir.DataType, shape: tuple[int, ...]) -> None:
        """Write one tensor. A name is written once."""
        assert name not in self.extents, f"{name} is written twice"
        self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT))
        self.extents[name] = Extent(self._file.tell(), len(data), dtype, tuple(shape))
        self._file.write(data)

    def append_array(self, name: str, array: np.ndarray[Any, Any]) -> None:
        """Write an array in its own type (little-endian; bfloat16 and 8-bit floats as ml_dtypes have them)."""
        contiguous = np.ascontiguousarray(array)
        raw = contiguous.view(np.uint8).reshape(-1).data if contiguous.size else memoryview(b"")
        self.append(name, raw, ir.DataType.from_numpy(contiguous.dtype), contiguous.shape)

    def tensor(self, name: str) -> ir.ExternalTensor:
        """The tensor as a graph beside the file refers to it."""
        extent = self.extents[name]
        return ir.ExternalTensor(
            self.path.name,
            extent.offset,
            extent.length,
            extent.dtype,
            shape=ir.Shape(extent.shape),
            name=name,
            base_dir=self.path.parent,
        )

    def close(self) -> None:
        """Make the bytes durable."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
