"""Safetensors folders, single file or sharded, checked from their headers and read tensor by tensor.

Tensors are read with plain file reads, not mapped: mapped pages count as this process's memory for as long as the
file is open, and a streaming export would appear to hold the whole model.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from memrt.export.checkpoints.source import Shape
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import sha256_of

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
_LENGTH = 8  # bytes of the header's length, little-endian, at the start of the file
_LARGEST_HEADER = 100_000_000  # the format's own limit
_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of a file: `start` is counted from the beginning of the file, in bytes."""

    file: Path
    dtype: str
    shape: Shape
    start: int

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return math.prod(self.shape) * _BYTES.get(self.dtype, 1)

    @property
    def is_float(self) -> bool:
        """Whether it can be a weight here: bf16, fp16 or fp32."""
        return self.dtype in _FLOATS


class SafetensorsFolder:
    """A `WeightSource` over the files of one folder, under the names that the files use."""

    def __init__(self, folder: Path, single: str = SINGLE) -> None:
        """Read and check all headers. Raises MemrtError for missing, truncated or damaged files."""
        self.label = folder.absolute().name
        self._folder = folder
        self._tensors = _open(folder, single)

    def names(self) -> tuple[str, ...]:
        """As stored, sorted."""
        return tuple(sorted(self._tensors))

    def stored(self, name: str) -> Stored:
        """Where and how a tensor is stored."""
        return self._tensors[name]

    def shape(self, name: str) -> Shape:
        """From the header."""
        return self._tensors[name].shape

    def read(self, name: str) -> Tensor:
        """One tensor, in its stored dtype. Raises MemrtError when it is no float."""
        return read_tensor(self._tensors[name], name)

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of every file that holds a tensor, by its name."""
        files = sorted({tensor.file for tensor in self._tensors.values()})
        return {file.name: sha256_of(file) for file in files}


def read_tensor(stored: Stored, name: str) -> Tensor:
    """One tensor of a file, in its stored dtype. Raises MemrtError when it is no bf16, fp16 or fp32."""
    if not stored.is_float:
        raise _refusal(
            stored.file, f"{name} as fp32, fp16 or bf16", stored.dtype, "use the checkpoint before it was quantised"
        )
    data = np.fromfile(stored.file, dtype=np.uint8, count=stored.bytes, offset=stored.start)
    if data.size != stored.bytes:
        raise _refusal(stored.file, f"{stored.bytes} bytes of {name}", f"{data.size}", "copy the file again")
    if not data.size:  # torch does not reinterpret the bytes of nothing
        return torch.empty(stored.shape, dtype=_FLOATS[stored.dtype])
    return torch.from_numpy(data).view(_FLOATS[stored.dtype]).reshape(stored.shape)


def has_weights(folder: Path, single: str = SINGLE) -> bool:
    """Whether a folder holds safetensors weights in one of the two layouts."""
    return (folder / single).is_file() or (folder / INDEX).is_file()


def _open(folder: Path, single: str) -> dict[str, Stored]:
    if (folder / single).is_file():
        return read_header(folder / single)
    if not (folder / INDEX).is_file():
        raise _refusal(folder, f"{single} or {INDEX}", "neither", "name the folder that holds the weights")
    shards = _shards(folder)
    tensors: dict[str, Stored] = {}
    for shard in sorted(set(shards.values())):
        tensors |= read_header(folder / shard)
    for name, shard in shards.items():
        if name not in tensors or tensors[name].file.name != shard:
            raise _refusal(folder / shard, f"the tensor {name}", "none", "copy this shard again")
    # A shard may hold tensors that the index leaves out: the index is what the checkpoint's author meant.
    return {name: tensors[name] for name in shards}


def _shards(folder: Path) -> dict[str, str]:
    try:
        shards = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        named = {str(name): Path(str(shard)).name for name, shard in shards.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _refusal(folder / INDEX, "a weight_map", error, "copy the index again") from error
    absent = sorted({shard for shard in named.values() if not (folder / shard).is_file()})
    if absent:
        raise _refusal(
            folder,
            f"{len(set(named.values()))} shards",
            f"{len(absent)} missing: {absent[0]}",
            "copy the missing files",
        )
    return named


def read_header(file: Path) -> dict[str, Stored]:
    """The tensors of one safetensors file. Raises MemrtError unless the header accounts for every byte of the file."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH), "little")
        if size < _LENGTH or length > min(size - _LENGTH, _LARGEST_HEADER):
            raise _refusal(file, "a safetensors header", f"{size} bytes without one", "copy the file again")
        text = stream.read(length)
    try:
        header: dict[str, Any] = json.loads(text)
        header.pop("__metadata__", None)
        start = _LENGTH + length
        tensors: dict[str, Stored] = {}
        spans: list[tuple[int, int]] = []
        for name, entry in header.items():
            first, last = (int(offset) for offset in entry["data_offsets"])
            tensors[name] = Stored(file, str(entry["dtype"]), tuple(map(int, entry["shape"])), start + first)
            if last - first < 0 or (entry["dtype"] in _BYTES and last - first != tensors[name].bytes):
                raise ValueError(f"{name} of shape {entry['shape']} in {last - first} bytes")
            spans.append((first, last))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _refusal(file, "a safetensors header", error, "copy the file again") from error
    end = 0
    for first, last in sorted(spans):
        if first != end:
            raise _refusal(file, "tensors without gaps or overlaps", f"one at byte {first}", "copy the file again")
        end = last
    if start + end != size:
        raise _refusal(file, f"{start + end} bytes, as its header says", f"{size} bytes", "copy the file again")
    return tensors


def _refusal(path: Path, expected: object, found: object, fix: str) -> MemrtError:
    return MemrtError(f"checkpoint {path}", expected=expected, found=found, fix=fix)
