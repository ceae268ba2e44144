"""The CUDA driver, through ctypes: device memory, streams and copies for the TensorRT adapter.

`libcuda.so.1` comes with every NVIDIA driver, desktop and Jetson alike, and its C interface is stable. The CUDA runtime
library is a separate package that TensorRT for RTX links statically: needing it would be one more version to match.
TensorRT works in the device's primary context, so the memory made here is its memory.

A context is current per thread: `activate` comes first in every thread that uses the device.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from memrt.runtime.engine.tensorrt_bindings import RowCopy
from memrt.runtime.errors import MemrtError

LIBRARY = "libcuda.so.1"
# cuda.h: CUdevice_attribute, CUmemorytype, CUstream_flags.
_MAJOR, _MINOR = 75, 76
_DEVICE_MEMORY = 2
_NON_BLOCKING = 1


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU: product name, compute capability as one number (8.7 is 87), driver's CUDA version, memory in bytes."""

    name: str
    sm: int
    driver: str
    memory: int


class Device(Protocol):
    """What the adapter asks of a device. Addresses are plain integers; 0 is no memory."""

    def activate(self) -> None:
        """Make the device current in the calling thread."""
        ...

    def allocate(self, size: int) -> int:
        """`size` bytes of device memory, set to zero."""
        ...

    def free(self, address: int) -> None:
        """Give memory back."""
        ...

    def new_stream(self, *, high_priority: bool) -> int:
        """A stream of its own; work of a high-priority stream goes first."""
        ...

    def free_stream(self, stream: int) -> None:
        """Give a stream back."""
        ...

    def upload(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Copy a C-contiguous array to the device."""
        ...

    def download(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Copy device memory into a C-contiguous array."""
        ...

    def copy_rows(self, target: int, source: int, copy: RowCopy, stream: int) -> None:
        """A strided copy on the device."""
        ...

    def synchronize(self, stream: int) -> None:
        """Wait until all work of the stream is done."""
        ...


class _Copy2D(ctypes.Structure):
    """CUDA_MEMCPY2D_v2 of cuda.h."""

    _fields_ = [
        ("src_x", ctypes.c_size_t),
        ("src_y", ctypes.c_size_t),
        ("src_type", ctypes.c_uint),
        ("src_host", ctypes.c_void_p),
        ("src_device", ctypes.c_uint64),
        ("src_array", ctypes.c_void_p),
        ("src_pitch", ctypes.c_size_t),
        ("dst_x", ctypes.c_size_t),
        ("dst_y", ctypes.c_size_t),
        ("dst_type", ctypes.c_uint),
        ("dst_host", ctypes.c_void_p),
        ("dst_device", ctypes.c_uint64),
        ("dst_array", ctypes.c_void_p),
        ("dst_pitch", ctypes.c_size_t),
        ("width", ctypes.c_size_t),
        ("height", ctypes.c_size_t),
    ]


class CudaDevice:
    """The first visible GPU (CUDA_VISIBLE_DEVICES chooses). Implements `Device`."""

    def __init__(self) -> None:
        """Raises `MemrtError` when there is no driver or no GPU."""
        try:
            self._cuda = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise _no_gpu(f"no {LIBRARY}") from error
        device, context = ctypes.c_int(), ctypes.c_void_p()
        code = int(self._cuda.cuInit(0)) or int(self._cuda.cuDeviceGet(ctypes.byref(device), 0))
        if code:
            raise _no_gpu(self._explain(code))
        self._device = device
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._context = context
        self.activate()

    @property
    def gpu(self) -> Gpu:
        """What it is."""
        name, version, memory = ctypes.create_string_buffer(128), ctypes.c_int(), ctypes.c_size_t()
        self._call("cuDeviceGetName", name, len(name), self._device)
        self._call("cuDriverGetVersion", ctypes.byref(version))
        self._call("cuDeviceTotalMem_v2", ctypes.byref(memory), self._device)
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(major), _MAJOR, self._device)
        self._call("cuDeviceGetAttribute", ctypes.byref(minor), _MINOR, self._device)
        driver = f"{version.value // 1000}.{version.value % 1000 // 10}"
        return Gpu(name.value.decode(), 10 * major.value + minor.value, driver, memory.value)

    def activate(self) -> None:
        """Make the device current in the calling thread."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size: int) -> int:
        """`size` bytes, set to zero."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size, 1)))
        self._call("cuMemsetD8_v2", address, ctypes.c_ubyte(0), ctypes.c_size_t(max(size, 1)))
        return int(address.value)

    def free(self, address: int) -> None:
        """Give memory back."""
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def new_stream(self, *, high_priority: bool) -> int:
        """A non-blocking stream with the device's lowest or highest priority."""
        stream, least, greatest = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
        self._call("cuCtxGetStreamPriorityRange", ctypes.byref(least), ctypes.byref(greatest))
        priority = greatest if high_priority else least
        self._call("cuStreamCreateWithPriority", ctypes.byref(stream), ctypes.c_uint(_NON_BLOCKING), priority)
        return int(stream.value or 0)

    def free_stream(self, stream: int) -> None:
        """Give a stream back."""
        self._call("cuStreamDestroy_v2", ctypes.c_void_p(stream))

    def upload(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Copy a C-contiguous array to the device; the array may be reused after `synchronize`."""
        size, host = ctypes.c_size_t(array.nbytes), ctypes.c_void_p(array.ctypes.data)
        self._call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), host, size, ctypes.c_void_p(stream))

    def download(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Copy device memory into a C-contiguous array, which is complete after `synchronize`."""
        size, host = ctypes.c_size_t(array.nbytes), ctypes.c_void_p(array.ctypes.data)
        self._call("cuMemcpyDtoHAsync_v2", host, ctypes.c_uint64(address), size, ctypes.c_void_p(stream))

    def copy_rows(self, target: int, source: int, copy: RowCopy, stream: int) -> None:
        """A strided copy on the device."""
        block = _Copy2D(
            src_type=_DEVICE_MEMORY,
            src_device=source,
            src_pitch=copy.source_pitch,
            dst_type=_DEVICE_MEMORY,
            dst_device=target + copy.offset,
            dst_pitch=copy.target_pitch,
            width=copy.width,
            height=copy.rows,
        )
        self._call("cuMemcpy2DAsync_v2", ctypes.byref(block), ctypes.c_void_p(stream))

    def synchronize(self, stream: int) -> None:
        """Wait until all work of the stream is done."""
        self._call("cuStreamSynchronize", ctypes.c_void_p(stream))

    def _call(self, function: str, *arguments: Any) -> None:
        code = int(getattr(self._cuda, function)(*arguments))
        if code:
            raise MemrtError(
                f"the GPU refused {function}",
                expected="success",
                found=self._explain(code),
                fix="close other programs that use the GPU; if it stays, look at dmesg and restart the computer",
            )

    def _explain(self, code: int) -> str:
        text = ctypes.c_char_p()
        self._cuda.cuGetErrorString(ctypes.c_int(code), ctypes.byref(text))
        return f"CUDA error {code}: {text.value.decode() if text.value else 'unknown'}"


def _no_gpu(found: str) -> MemrtError:
    return MemrtError(
        "no NVIDIA GPU",
        expected="a GPU with its driver",
        found=found,
        fix="run this on the robot's computer, or export for the target cpu",
    )
