"""Where engines built on a device live: a folder beside the bundle, one subfolder per (bundle, GPU, library version).

The signed bundle's set of files never changes. What lies in the cache is described by a record that is written last,
so a build that was cut short leaves nothing that counts; what does not match its record is refused, never rebuilt
unasked: an engine that changed by itself is a question for a human.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from memrt.runtime.bundle import Bundle, sha256_of
from memrt.runtime.durable_file import write_durably
from memrt.runtime.engine.cuda import CudaDevice
from memrt.runtime.engine.tensorrt_library import Backend, load_library
from memrt.runtime.errors import MemrtError
from memrt.runtime.processor import this_processor
from memrt.runtime.strict_config import convert

RECORD = "engines.json"
_KEY_DIGITS = 16  # of the bundle's SHA-256 in a folder name; the record holds all of it

RecordT = TypeVar("RecordT", bound=msgspec.Struct)


class DeviceInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The computer that runs engines, and the library that runs them there.

    `name`: the GPU's product name, or the CPU's. `sm`: compute capability (8.7 is 87), None on a CPU. `driver`: CUDA
    version of the driver, empty on a CPU.
    """

    backend: Literal["onnxruntime", "tensorrt", "tensorrt_rtx"]
    version: str
    name: str
    sm: int | None = None
    driver: str = ""

    def describe(self) -> str:
        """One phrase for people."""
        sm = "" if self.sm is None else f" (SM {self.sm}, driver {self.driver})"
        return f"{self.name}{sm} with {self.backend} {self.version}"


class BuiltEngine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One engine in the cache. `recipe` is the SHA-256 of its recipe file; sizes in bytes."""

    file: str
    sha256: str
    size: int
    recipe: str
    seconds: float
    peak_bytes: int


class BuildRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of `engines.json`. `bundle` is the SHA-256 of the manifest, which vouches for every file."""

    schema_version: Literal[1] = 1
    bundle: str
    device: DeviceInfo
    engines: dict[str, BuiltEngine]


def default_cache(bundle: Bundle) -> Path:
    """The cache folder beside a bundle."""
    path = bundle.path.resolve()
    return path.with_name(f"{path.name}.engines")


def writable(cache: Path) -> Path:
    """`cache`, made if need be. Raises `MemrtError` when nothing can be written there."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        allowed = os.access(cache, os.W_OK | os.X_OK)
    except OSError:
        allowed = False
    if not allowed:
        raise MemrtError(
            f"cache for engines and proofs {cache}",
            expected="a folder that can be written",
            found="no permission, a read-only file system or a file",
            fix="name another folder with --cache, or run as the bundle's owner",
        )
    return cache


def device_folder(cache: Path, bundle: Bundle, device: DeviceInfo) -> Path:
    """What belongs to this bundle, device and library version."""
    name = re.sub(r"[^a-z0-9]+", "-", f"{device.name}-{device.backend}-{device.version}".lower()).strip("-")
    return cache / f"{bundle.sha256[:_KEY_DIGITS]}-{name}"


def this_gpu(backend: Backend) -> DeviceInfo:
    """The first visible GPU. Raises `MemrtError` when the library or the GPU is missing."""
    library = load_library(backend)
    gpu = CudaDevice().gpu
    return DeviceInfo(backend=backend, version=library.__version__, name=gpu.name, sm=gpu.sm, driver=gpu.driver)


def this_cpu() -> DeviceInfo:
    """This computer's processor, for engines of ONNX Runtime."""
    try:
        import onnxruntime  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise MemrtError(
            "cannot run this bundle's engines",
            expected="the package onnxruntime",
            found=str(error),
            fix="pip install 'memrt[cpu]'",
        ) from error
    return DeviceInfo(backend="onnxruntime", version=onnxruntime.__version__, name=this_processor().name)


def read_record(path: Path, struct: type[RecordT]) -> RecordT | None:
    """A record of the cache, or None when there is none. Raises `MemrtError` when it is malformed."""
    if not path.is_file():
        return None
    try:
        values = msgspec.json.decode(path.read_bytes())
    except msgspec.DecodeError as error:
        raise _malformed(path, error) from error
    if not isinstance(values, dict):
        raise _malformed(path, f"a {type(values).__name__}")
    return convert(values, struct, str(path))


def write_record(path: Path, record: msgspec.Struct) -> None:
    """Write durably and in one step, sorted: equal records, equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = msgspec.to_builtins(record)
    text = json.dumps(content, sort_keys=True, indent=2, ensure_ascii=True, allow_nan=False) + "\n"
    write_durably(path, text.encode("ascii"))


def load_built(bundle: Bundle, device: DeviceInfo, cache: Path) -> BuildRecord | None:
    """The record of the engines built for exactly this bundle, device and version, every file checked; None before.

    Raises `MemrtError` when the record or an engine is not what was built.
    """
    folder = device_folder(cache, bundle, device)
    record = read_record(folder / RECORD, BuildRecord)
    if record is None:
        return None
    _same(folder, "bundle", bundle.sha256, record.bundle)
    built_for = msgspec.structs.replace(record.device, driver=device.driver)  # a new driver needs a proof, not a build
    _same(folder, "device", device.describe(), built_for.describe())
    for name, engine in sorted(record.engines.items()):
        path = folder / engine.file
        _same(folder, f"{name}, SHA-256", engine.sha256, sha256_of(path) if path.is_file() else "no file")
    return record


def built_elsewhere(bundle: Bundle, cache: Path) -> list[BuildRecord]:
    """Records in the cache of this bundle, whatever they were built for."""
    records = (read_record(path, BuildRecord) for path in sorted(cache.glob(f"*/{RECORD}")))
    wanted = bundle.sha256
    return [record for record in records if record is not None and record.bundle == wanted]


def _same(folder: Path, what: str, expected: str, found: str) -> None:
    if expected != found:
        raise MemrtError(
            f"built engines in {folder} do not match ({what})",
            expected=expected,
            found=found,
            fix="find out what changed them; then run memrt build --rebuild",
        )


def _malformed(path: Path, found: object) -> MemrtError:
    return MemrtError(f"record {path}", expected="a JSON object", found=found, fix="run memrt build --rebuild")
