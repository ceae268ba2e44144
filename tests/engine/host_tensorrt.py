"""TensorRT's Python interface and a device, both on the host: enough of them to run the adapter without a GPU.

The one engine it knows computes, from x half [n, 2] (profiles 1..2 and 3..8) and cache bfloat16 [2, 6, 2]:
y half [n, 2] = 2 x; rows bfloat16 [2, n, 2] = x and x + 1; total bfloat16 [1] = the sum of the cache.
"""

from __future__ import annotations

import enum
from types import SimpleNamespace

import numpy as np

from memrt.runtime.engine.tensorrt_bindings import RowCopy, bfloat16_bits, floats_of_bfloat16

CONTENT = b"an engine of version 1.7 for SM 86"
PROFILES = [((1, 2), (1, 2), (2, 2)), ((3, 2), (8, 2), (8, 2))]
SHAPES = {"x": (-1, 2), "cache": (2, 6, 2), "y": (-1, 2), "rows": (2, -1, 2), "total": (1,)}
DTYPES = {"x": "HALF", "cache": "BF16", "y": "HALF", "rows": "BF16", "total": "BF16"}
INPUTS = ("x", "cache")

EngineValidity = enum.Enum("EngineValidity", "VALID INVALID")
TensorIOMode = enum.Enum("TensorIOMode", "INPUT OUTPUT")
TensorLocation = enum.Enum("TensorLocation", "DEVICE HOST")
ExecutionContextAllocationStrategy = enum.Enum("ExecutionContextAllocationStrategy", "STATIC USER_MANAGED")
EngineInvalidityDiagnostics = enum.IntFlag("EngineInvalidityDiagnostics", "VERSION_MISMATCH UNSUPPORTED_CC")
ILogger = type("ILogger", (), {})
__version__ = "1.7"


class HostDevice:
    """Device memory that is host memory; counts what was not given back."""

    def __init__(self) -> None:
        self.memory: dict[int, np.ndarray] = {}
        self.streams: list[bool] = []
        self.uploaded: list[int] = []
        self._next = 1

    def activate(self) -> None:
        pass

    def allocate(self, size: int) -> int:
        self._next += 1
        self.memory[self._next << 32] = np.zeros(size, np.uint8)
        return self._next << 32

    def free(self, address: int) -> None:
        del self.memory[address]

    def new_stream(self, *, high_priority: bool) -> int:
        self.streams.append(high_priority)
        return len(self.streams)

    def free_stream(self, stream: int) -> None:
        self.streams.pop()

    def upload(self, address: int, array: np.ndarray, stream: int) -> None:
        self.uploaded.append(array.nbytes)
        self.memory[address][: array.nbytes] = array.reshape(-1).view(np.uint8)

    def download(self, array: np.ndarray, address: int, stream: int) -> None:
        array.reshape(-1).view(np.uint8)[:] = self.memory[address][: array.nbytes]

    def copy_rows(self, target: int, source: int, copy: RowCopy, stream: int) -> None:
        for row in range(copy.rows):
            at, begin = copy.offset + row * copy.target_pitch, row * copy.source_pitch
            self.memory[target][at : at + copy.width] = self.memory[source][begin : begin + copy.width]

    def synchronize(self, stream: int) -> None:
        pass


class Context:
    def __init__(self, device: HostDevice) -> None:
        self._device, self._shapes, self._addresses = device, {}, {}
        self.profile = -1

    def set_device_memory(self, address: int, size: int) -> None:
        assert self._device.memory[address].nbytes == size

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.profile = index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = shape
        least, _, most = PROFILES[self.profile]
        return name != "x" or least[0] <= shape[0] <= most[0]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._shapes["x"][0] if size == -1 else size for size in SHAPES[name])

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        memory = {name: self._device.memory[address] for name, address in self._addresses.items()}
        count = self._shapes["x"][0]
        x = memory["x"][: 4 * count].view(np.float16).reshape(count, 2)
        memory["y"][: 4 * count] = (2 * x).reshape(-1).view(np.uint8)
        rows = bfloat16_bits(np.stack((x, x + 1)).astype(np.float32))
        memory["rows"][: rows.nbytes] = rows.reshape(-1).view(np.uint8)
        total = floats_of_bfloat16(memory["cache"].view(np.uint16)).sum(keepdims=True)
        memory["total"][:] = bfloat16_bits(total).view(np.uint8)
        return True


class Engine:
    num_io_tensors = len(SHAPES)
    num_optimization_profiles = len(PROFILES)
    device_memory_size_v2 = 64

    def __init__(self, device: HostDevice) -> None:
        self.contexts: list[Context] = []
        self._device = device

    def get_tensor_name(self, index: int) -> str:
        return list(SHAPES)[index]

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name=DTYPES[name])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return SHAPES[name]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in INPUTS else TensorIOMode.OUTPUT

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, index: int) -> tuple[tuple[int, ...], ...]:
        return PROFILES[index]

    def create_execution_context(self, strategy: ExecutionContextAllocationStrategy) -> Context:
        assert strategy == ExecutionContextAllocationStrategy.USER_MANAGED
        self.contexts.append(Context(self._device))
        return self.contexts[-1]


class Library:
    """Stands for the module `tensorrt_rtx`."""

    ILogger = ILogger
    TensorIOMode, TensorLocation, EngineValidity = TensorIOMode, TensorLocation, EngineValidity
    ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
    EngineInvalidityDiagnostics = EngineInvalidityDiagnostics
    __version__ = __version__

    def __init__(self, device: HostDevice) -> None:
        self.engine = Engine(device)
        library = self

        class Runtime:
            def __init__(self, logger: object) -> None:
                self._logger = logger

            def deserialize_cuda_engine(self, content: bytes) -> Engine | None:
                return library.engine if content == CONTENT else None

            def get_engine_validity(self, content: bytes) -> tuple[EngineValidity, int]:
                return EngineValidity.INVALID, int(EngineInvalidityDiagnostics.VERSION_MISMATCH)

        self.Runtime = Runtime
