"""The host's stand-in for TensorRT, made to run real graphs: an "engine file" is an ONNX file under another name.

Device memory, bindings and copies are those of `host_tensorrt`, so what runs is the adapter itself; only the arithmetic
is ONNX Runtime's. Every engine has one profile, up to `LONGEST` in each free dimension.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnxruntime
from host_tensorrt import Engine, HostDevice, Library, TensorIOMode, TensorLocation

from memrt.runtime.engine.onnxruntime import DISABLED_OPTIMIZERS, NUMPY_DTYPES, session_options

LONGEST = 1024
TENSORRT_TYPES = {"float32": "FLOAT", "float16": "HALF", "int64": "INT64", "uint8": "UINT8"}


class GraphContext:
    def __init__(self, engine: GraphEngine, device: HostDevice) -> None:
        self._engine, self._device = engine, device
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_device_memory(self, address: int, size: int) -> None:
        assert self._device.memory[address].nbytes == size

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        return index == 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = shape
        return len(shape) == len(self._engine.inputs[name].shape)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        symbols = {
            symbol: size
            for node in self._engine.inputs.values()
            for symbol, size in zip(node.shape, self._shapes[node.name], strict=True)
        }
        return tuple(symbols.get(size, size) for size in self._engine.outputs[name].shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        feeds = {name: self._array(name, self._shapes[name]) for name in self._engine.inputs}
        values = self._engine.session.run(None, feeds)
        for name, value in zip(self._engine.outputs, values, strict=True):
            assert value.shape == self.get_tensor_shape(name)
            self._array(name, value.shape)[...] = value
        return True

    def _array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        dtype = np.dtype(self._engine.dtypes[name])
        size = int(np.prod(shape)) * dtype.itemsize
        return self._device.memory[self._addresses[name]][:size].view(dtype).reshape(shape)


class GraphEngine(Engine):
    num_optimization_profiles = 1

    def __init__(self, content: bytes, device: HostDevice) -> None:
        super().__init__(device)
        self.session = onnxruntime.InferenceSession(
            content, sess_options=session_options(1), disabled_optimizers=list(DISABLED_OPTIMIZERS)
        )
        self.inputs = {node.name: node for node in self.session.get_inputs()}
        self.outputs = {node.name: node for node in self.session.get_outputs()}
        self.dtypes = {name: NUMPY_DTYPES[node.type] for name, node in (self.inputs | self.outputs).items()}
        self.num_io_tensors = len(self.dtypes)

    def get_tensor_name(self, index: int) -> str:
        return list(self.dtypes)[index]

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name=TENSORRT_TYPES[self.dtypes[name]])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        node = (self.inputs | self.outputs)[name]
        return tuple(size if isinstance(size, int) else -1 for size in node.shape)

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, index: int) -> tuple[tuple[int, ...], ...]:
        shape = self.get_tensor_shape(name)
        return tuple(tuple(free if size == -1 else size for size in shape) for free in (1, 1, LONGEST))

    def create_execution_context(self, strategy: object) -> GraphContext:  # type: ignore[override]
        self.contexts.append(GraphContext(self, self._device))  # type: ignore[arg-type]
        return self.contexts[-1]  # type: ignore[return-value]


class GraphLibrary(Library):
    """Loads any graph."""

    def __init__(self, device: HostDevice) -> None:
        super().__init__(device)

        class Runtime:
            def __init__(self, logger: object) -> None:
                self._logger = logger

            def deserialize_cuda_engine(self, content: bytes) -> GraphEngine:
                return GraphEngine(content, device)

        self.Runtime = Runtime
