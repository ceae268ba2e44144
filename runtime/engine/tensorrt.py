"""TensorRT and TensorRT for RTX behind one adapter: the engine protocol on a GPU.

Rules of this backend:
- One engine, one stream, one owner thread. The action expert's stream outranks the high level's (`high_priority`).
- `run` returns when its results are in host memory.
- One execution context per optimisation profile, made at first use; all share one scratch buffer, so that a decoder
  with five profiles pays for its largest only.
- Tensors named in `keep_on_device` never cross the bus: a K/V cache is an input that stays, and the rows that a call
  computed are added to it on the device (`append_rows`). An input can also be read where another engine left it
  (`take_from`): pi0.5's prefix leaves keys and values for all denoise steps.
- An engine fits one version of its library, and the GPUs it was built for; anything else is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrt.runtime.engine.cuda import CudaDevice, Device
from memrt.runtime.engine.onnxruntime import check_feeds
from memrt.runtime.engine.tensorrt_bindings import from_device, row_copy, staging_dtype, tensor_bytes, to_device
from memrt.runtime.engine.tensorrt_library import NAMES, SUFFIXES, load_library
from memrt.runtime.engine.tensorrt_loading import load_engine
from memrt.runtime.engine.tensorrt_profiles import Profile, Shape, choose_profile
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import TensorSpec

Array = NDArray[Any]


class TensorRtEngine:
    """An engine file on the first visible GPU. Implements `memrt.runtime.types.Engine`."""

    def __init__(
        self,
        path: str | Path,
        *,
        high_priority: bool = False,
        runtime_cache: Path | None = None,
        library: Any = None,
        device: Device | None = None,
    ) -> None:
        """Load `path`: `.engine` (TensorRT) or `.rtx` (TensorRT for RTX).

        `runtime_cache` is where TensorRT for RTX keeps the kernels it compiles on first use; it is read if it is there
        and written by `close`. `library` and `device` replace NVIDIA's module and the GPU. Raises `MemrtError` when the
        library, the GPU or the file is missing, or the engine belongs to another version or GPU.
        """
        self._path = Path(path)
        self._backend = SUFFIXES[self._path.suffix]
        if not self._path.is_file():
            raise MemrtError(
                "engine file is missing", expected="a file", found=f"nothing at {path}", fix="run memrt build"
            )
        self._library = load_library(self._backend) if library is None else library
        self._device: Device = CudaDevice() if device is None else device
        self._device.activate()
        self._loaded = load_engine(self._path, self._backend, self._library)
        self._engine: Any = self._loaded.engine
        self._inputs, self._outputs = self._loaded.inputs, self._loaded.outputs
        self._dtypes, self._profiles = self._loaded.dtypes, self._loaded.profiles
        self._config, self._cache_file = self._runtime_config(runtime_cache), runtime_cache
        self._contexts: dict[int, Any] = {}
        self._buffers: dict[str, tuple[int, int]] = {}  # name to (address, size)
        self._output_shapes: dict[str, Shape] = {}
        self._kept: frozenset[str] = frozenset()
        self._taken: dict[str, tuple[TensorRtEngine, str]] = {}
        self._scratch = 0
        self._stream = self._device.new_stream(high_priority=high_priority)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Name, host dtype and shape of every input; −1 is a dynamic dimension, bfloat16 is passed as float32."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Name, host dtype and shape of every output; −1 is a dynamic dimension, bfloat16 is returned as float32."""
        return self._outputs

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """The shape ranges it was compiled for."""
        return self._profiles

    def keep_on_device(self, names: Iterable[str]) -> None:
        """From here on `run` neither takes nor returns these tensors. Inputs need a fixed shape and begin as zeros.

        Raises `MemrtError` for an unknown tensor and for an input of dynamic shape.
        """
        chosen = frozenset(names)
        fixed = {spec.name for spec in self._inputs if -1 not in spec.shape}
        allowed = fixed | {spec.name for spec in self._outputs}
        if unknown := sorted(chosen - allowed):
            raise MemrtError(
                f"engine {self._path.name} cannot keep `{unknown[0]}` on the device",
                expected=f"one of {', '.join(sorted(allowed))}",
                found=f"`{unknown[0]}`",
                fix="name outputs, or inputs of fixed shape",
            )
        self._open()
        self._kept = chosen
        for spec in self._inputs:
            if spec.name in chosen:
                self._buffer(spec.name, tensor_bytes(self._dtypes[spec.name], spec.shape))

    def take_from(self, name: str, source: TensorRtEngine, output: str) -> None:
        """From here on the input `name` is the `output` of the last call of `source`, where that lies on the device.

        `run` does not take it any more; `source` must run first and stay open. Raises `MemrtError` when the two differ
        in type or rank.
        """
        self._open()
        wanted = next((spec for spec in self._inputs if spec.name == name), None)
        given = next((spec for spec in source.outputs if spec.name == output), None)
        fits = (
            wanted is not None
            and given is not None
            and self._dtypes[name] == source._dtypes[output]
            and len(wanted.shape) == len(given.shape)
        )
        if not fits:
            raise MemrtError(
                f"engine {self._path.name} cannot take '{name}' from '{output}' of {source._path.name}",
                expected=f"an input and an output of one type and rank: {wanted}",
                found=f"{given}",
                fix="export both engines with one type for keys and values",
            )
        self._taken[name] = (source, output)

    def append_rows(self, cache: str, rows: str, start: int) -> None:
        """Copy the output `rows` [..., n, width] of the last call into the kept input `cache` from row `start` on."""
        self._open()
        target = next(spec.shape for spec in self._inputs if spec.name == cache and cache in self._kept)
        copy = row_copy(self._path.name, target, self._output_shapes[rows], self._dtypes[cache], start)
        self._device.activate()
        self._device.copy_rows(self._buffers[cache][0], self._buffers[rows][0], copy, self._stream)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Compute every output from `feeds`: the engine's inputs, without those kept on the device.

        Raises `MemrtError` naming the input whose presence, dtype or shape is wrong, or what the library refused.
        """
        self._open()
        passed = tuple(spec for spec in self._inputs if spec.name not in self._kept | self._taken.keys())
        check_feeds(str(self._path), passed, feeds)
        shapes = {spec.name: spec.shape for spec in self._inputs} | {n: array.shape for n, array in feeds.items()}
        shapes |= {name: source._output_shapes.get(output, ()) for name, (source, output) in self._taken.items()}
        index = choose_profile(self._path.name, self._profiles, shapes)
        self._device.activate()
        context = self._context(index)
        uploads = self._bind_inputs(context, feeds, shapes)
        self._bind_outputs(context)
        self._require(context.execute_async_v3(self._stream), "cannot run")
        raw = {
            spec.name: np.empty(self._output_shapes[spec.name], staging_dtype(self._dtypes[spec.name]))
            for spec in self._outputs
            if spec.name not in self._kept
        }
        for name, array in raw.items():
            self._device.download(array, self._buffers[name][0], self._stream)
        self._device.synchronize(self._stream)
        del uploads  # the device has read them by now
        return {name: from_device(array, self._dtypes[name]) for name, array in raw.items()}

    def close(self) -> None:
        """Give everything back and keep the compiled kernels; closing twice is allowed."""
        if self._engine is None:
            return
        self._device.activate()
        self._device.synchronize(self._stream)
        if self._config is not None and self._cache_file is not None:
            self._save_runtime_cache(self._cache_file)
        self._contexts.clear()
        self._config = self._engine = None
        for address, _ in self._buffers.values():
            self._device.free(address)
        if self._scratch:
            self._device.free(self._scratch)
        self._buffers.clear()
        self._device.free_stream(self._stream)

    def _bind_inputs(self, context: Any, feeds: Mapping[str, Array], shapes: Mapping[str, Shape]) -> list[Array]:
        """Shapes and addresses of all inputs. Returns the arrays whose memory is read until the call is done."""
        alive: list[Array] = []
        for spec in self._inputs:
            name, dtype = spec.name, self._dtypes[spec.name]
            self._require(context.set_input_shape(name, tuple(shapes[name])), f"refuses the shape of '{name}'")
            if name in self._taken:
                source, output = self._taken[name]
                address = source._buffers[output][0]
            elif name in self._kept:
                address = self._buffers[name][0]
            else:
                array = to_device(feeds[name], dtype)
                alive.append(array)
                if name in self._loaded.on_host:
                    address = int(array.ctypes.data)
                else:
                    address = self._buffer(name, tensor_bytes(dtype, array.shape))
                    self._device.upload(address, array, self._stream)
            self._require(context.set_tensor_address(name, address), f"refuses the memory of '{name}'")
        return alive

    def _bind_outputs(self, context: Any) -> None:
        for spec in self._outputs:
            shape = tuple(int(size) for size in context.get_tensor_shape(spec.name))
            self._output_shapes[spec.name] = shape
            address = self._buffer(spec.name, tensor_bytes(self._dtypes[spec.name], shape))
            self._require(context.set_tensor_address(spec.name, address), f"refuses the memory of '{spec.name}'")

    def _buffer(self, name: str, size: int) -> int:
        """Device memory for a tensor; it grows to the largest call and stays."""
        address, held = self._buffers.get(name, (0, 0))
        if held < size:
            if address:
                self._device.synchronize(self._stream)
                self._device.free(address)
            address = self._device.allocate(size)
            self._buffers[name] = (address, size)
        return address

    def _context(self, index: int) -> Any:
        if index in self._contexts:
            return self._contexts[index]
        size = int(self._engine.device_memory_size_v2)
        if not self._scratch:
            self._scratch = self._device.allocate(size)
        strategy = self._library.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(strategy if self._config is None else self._config)
        self._require(context is not None, "gives no execution context")
        context.set_device_memory(self._scratch, size)
        self._require(context.set_optimization_profile_async(index, self._stream), f"refuses profile {index}")
        self._device.synchronize(self._stream)
        self._contexts[index] = context
        return context

    def _runtime_config(self, cache_file: Path | None) -> Any:
        """TensorRT for RTX compiles kernels on first use and can keep them; None for everything else."""
        if cache_file is None or not hasattr(self._engine, "create_runtime_config"):
            return None
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(self._library.ExecutionContextAllocationStrategy.USER_MANAGED)
        self._runtime_cache = config.create_runtime_cache()
        if cache_file.is_file():
            self._runtime_cache.deserialize(cache_file.read_bytes())  # one of another driver is refused and replaced
        config.set_runtime_cache(self._runtime_cache)
        return config

    def _save_runtime_cache(self, cache_file: Path) -> None:
        content = bytes(self._runtime_cache.serialize())
        partial = cache_file.with_name(f"{cache_file.name}.partial")
        try:
            if cache_file.is_file() and cache_file.read_bytes() == content:
                return
            cache_file.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
            partial.replace(cache_file)
        except OSError:  # a full or read-only disk costs the next start its compilation, never this run its end
            with suppress(OSError):
                partial.unlink()

    def _require(self, success: bool, what: str) -> None:
        if not success:
            raise MemrtError(
                f"engine {self._path.name} {what}",
                expected=f"{NAMES[self._backend]} to accept it",
                found=self._loaded.messages.reason(),
                fix="run memrt build again; if it stays, report it with this line",
            )

    def _open(self) -> None:
        if self._engine is None:
            raise MemrtError(
                f"engine {self._path.name} was closed",
                expected="an open engine",
                found="a closed one",
                fix="open the engine again with open_engine()",
            )
