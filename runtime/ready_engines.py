"""Opens a bundle's engines on the computer that runs them: the bundle's own files, or those that were built here.

Which library runs an engine is the bundle's affair, not the policy's: policies ask for `ll/step` and get an `Engine`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from memrt.runtime.bundle import Bundle
from memrt.runtime.device_cache import DeviceInfo
from memrt.runtime.device_engines import engine_files, kernel_cache, this_device
from memrt.runtime.engine import open_engine
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import Engine


@dataclass(frozen=True, slots=True)
class ReadyEngines:
    """A bundle's engines as they lie ready for `device`, by name.

    `files`: what to open. `kernels`: where TensorRT for RTX keeps the kernels it compiled for an engine; None for other
    libraries.
    """

    device: DeviceInfo
    files: Mapping[str, Path]
    kernels: Mapping[str, Path | None]

    @classmethod
    def of(cls, bundle: Bundle, *, device: DeviceInfo | None = None, cache: Path | None = None) -> ReadyEngines:
        """Find them for `device`, by default this computer; `cache` is the folder that `memrt build` was given.

        Hashes the engines that were built here. Raises `MemrtError` when the library or the GPU is missing, and when
        engines must be built first.
        """
        device = device or this_device(bundle)
        files = engine_files(bundle, device, cache=cache)
        return cls(device, files, {name: kernel_cache(bundle, device, name, cache=cache) for name in files})

    def open(self, name: str, *, threads: int = 1, high_priority: bool = False) -> Engine:
        """Open one engine (`open_engine`). Raises `MemrtError` for a name that the bundle does not have."""
        if name not in self.files:
            raise MemrtError(
                f"no engine `{name}` in this bundle",
                expected=f"one of {', '.join(sorted(self.files))}",
                found=f"`{name}`",
                fix="export the policy again: its files do not belong together",
            )
        return open_engine(
            self.files[name], threads=threads, high_priority=high_priority, runtime_cache=self.kernels[name]
        )
