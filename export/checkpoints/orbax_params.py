"""openpi's native JAX checkpoints: the Orbax folder `params/`, read array by array without JAX.

Orbax writes one zarr array per parameter, inside an OCDBT store or as folders, and lists them in `_METADATA`. The
layers of the network are stacked in one array, usually compressed as one chunk: asking for a layer decodes all of
them. So the first read of a stack spools it, decoded, into a temporary file, and every layer comes from there. Memory
holds one stack at most, the temporary disk once the model.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memrt.export.checkpoints.disk import check_disk
from memrt.export.checkpoints.openpi_jax import Origin, origins
from memrt.export.checkpoints.source import Shape
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import sha256_of

METADATA = "_METADATA"
OCDBT = "manifest.ocdbt"
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def is_orbax(folder: Path) -> bool:
    """Whether a folder is an Orbax checkpoint."""
    return (folder / METADATA).is_file()


class OrbaxSource:
    """A `WeightSource` of openpi's PyTorch names over an Orbax `params` folder. Needs the package tensorstore."""

    def __init__(self, params: Path, label: str) -> None:
        """Open every array, read none. Raises MemrtError for unreadable folders and for anything but a π0.5."""
        self.label = label
        self._params = params
        self._arrays = _open_arrays(params)
        shapes = {name: tuple(array.shape) for name, array in self._arrays.items()}
        self._origins = origins(shapes, f"checkpoint {params}")
        self._shapes = {name: origin.shape(shapes[origin.array]) for name, origin in self._origins.items()}
        self._spool = _Spool()

    def names(self) -> tuple[str, ...]:
        """openpi's PyTorch names, sorted."""
        return tuple(sorted(self._origins))

    def shape(self, name: str) -> Shape:
        """From the array's metadata."""
        return self._shapes[name]

    def read(self, name: str) -> Tensor:
        """One tensor, in its stored dtype. Raises MemrtError when its data are damaged or the disk is full."""
        origin = self._origins[name]
        try:
            return origin.turn(self._part(origin)).contiguous()
        except ValueError as error:  # tensorstore's word for missing or damaged chunks
            raise _refusal(self._params, f"the data of {origin.array}", error, "copy the folder again") from error

    def fingerprint(self) -> dict[str, str]:
        """SHA-256 of every file below the folder, by its path in it."""
        files = sorted(path for path in self._params.rglob("*") if path.is_file())
        return {path.relative_to(self._params).as_posix(): sha256_of(path) for path in files}

    def _part(self, origin: Origin) -> Tensor:
        array = self._arrays[origin.array]
        dtype = _DTYPES[str(array.dtype.name)]
        if origin.layer is None:
            return _tensor(array.read().result(), dtype)
        if array.chunk_layout.read_chunk.shape[0] == 1:
            return _tensor(array[origin.layer].read().result(), dtype)
        return self._spool.layer(origin.array, array, origin.layer, dtype)


class _Spool:
    """Decoded stacks in one anonymous temporary file, which vanishes with the process."""

    def __init__(self) -> None:
        self._file: Any = None
        self._starts: dict[str, int] = {}
        self._end = 0

    def layer(self, name: str, array: Any, layer: int, dtype: torch.dtype) -> Tensor:
        shape = tuple(array.shape)[1:]
        size = int(np.prod(shape)) * dtype.itemsize
        if name not in self._starts:
            self._write(name, array, size * int(array.shape[0]))
        self._file.seek(self._starts[name] + layer * size)
        data = np.fromfile(self._file, dtype=np.uint8, count=size)
        return torch.from_numpy(data).view(dtype).reshape(shape)

    def _write(self, name: str, array: Any, size: int) -> None:
        check_disk(tempfile.gettempdir(), size)
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="memrt-params-")  # noqa: SIM115  # lives as long as the source
        self._file.seek(self._end)
        np.ascontiguousarray(array.read().result()).tofile(self._file)
        self._file.flush()
        self._starts[name] = self._end
        self._end += size


def _tensor(array: NDArray[Any], dtype: torch.dtype) -> Tensor:
    # numpy's bfloat16 comes from ml_dtypes, which torch does not know: hand over the bits.
    bits = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return torch.from_numpy(bits).view(dtype).reshape(array.shape)


def _open_arrays(params: Path) -> dict[str, Any]:
    """Parameter path, joined by slashes without the outer `params` and the inner `value` → its array."""
    try:
        import tensorstore
    except ImportError as error:
        raise _refusal(params, "the package orbax-checkpoint", error, "pip install memrt[orbax]") from error
    try:
        document = json.loads((params / METADATA).read_text(encoding="utf-8"))
        paths = [[str(key["key"]) for key in entry["key_metadata"]] for entry in document["tree_metadata"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _refusal(params / METADATA, "Orbax's list of arrays", error, "copy the folder again") from error
    driver: dict[str, Any] = {"driver": "zarr3" if document.get("use_zarr3") else "zarr"}
    if document.get("store_array_data_equal_to_fill_value"):
        driver["fill_missing_data_reads"] = False  # nothing was left out when writing, so what is absent is lost
    arrays: dict[str, Any] = {}
    for path in paths:
        keys = path[1:] if path[0] == "params" else path
        name = "/".join(keys[:-1] if keys[-1] == "value" else keys)
        place = ".".join(path)
        store = (
            {"driver": "ocdbt", "base": f"file://{params.absolute()}/", "path": f"{place}/"}
            if (params / OCDBT).is_file()
            else {"driver": "file", "path": f"{params.absolute()}/{place}/"}
        )
        try:
            arrays[name] = tensorstore.open(driver | {"kvstore": store}, open=True, read=True).result()
        except ValueError as error:
            raise _refusal(params, f"the array {place}", error, "copy the folder again") from error
        if str(arrays[name].dtype.name) not in _DTYPES:
            raise _refusal(params, f"{place} as a float", arrays[name].dtype.name, "export the network's parameters")
    return arrays


def _refusal(path: Path, expected: object, found: object, fix: str) -> MemrtError:
    return MemrtError(f"checkpoint {path}", expected=expected, found=found, fix=fix)
