"""Reads an engine file: deserialise it, or say why this library or GPU cannot, and describe its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memrt.runtime.engine.tensorrt_bindings import host_dtype
from memrt.runtime.engine.tensorrt_library import NAMES, Backend, Messages, new_logger
from memrt.runtime.engine.tensorrt_profiles import Profile, ShapeRange
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import TensorSpec


@dataclass(frozen=True, slots=True, eq=False)
class LoadedEngine:
    """A deserialised engine. `dtypes`: TensorRT's type of every tensor; `on_host`: inputs read from host memory.

    `runtime` and `logger` are kept because the engine needs them alive.
    """

    engine: Any
    runtime: Any
    logger: Any
    messages: Messages
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dtypes: dict[str, str]
    on_host: frozenset[str]
    profiles: tuple[Profile, ...]


def load_engine(path: Path, backend: Backend, library: Any) -> LoadedEngine:
    """Deserialise `path`; the device must be current. Raises `MemrtError` when it fits not this version or GPU."""
    messages = Messages()
    logger = new_logger(library, messages)
    runtime = library.Runtime(logger)
    content = path.read_bytes()
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise MemrtError(
            f"{NAMES[backend]} {library.__version__} cannot load {path.name}",
            expected="an engine built with this version, for this GPU",
            found=validity(library, runtime, content) or messages.reason(),
            fix="build the engines again on this computer (memrt build), or install the version that built them",
        )
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    dtypes = {name: str(engine.get_tensor_dtype(name).name) for name in names}

    def specs(kind: Any) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(name, host_dtype(path.name, name, dtypes[name]), _sizes(engine.get_tensor_shape(name)))
            for name in names
            if engine.get_tensor_mode(name) == kind
        )

    inputs = specs(library.TensorIOMode.INPUT)
    host = library.TensorLocation.HOST
    return LoadedEngine(
        engine=engine,
        runtime=runtime,
        logger=logger,
        messages=messages,
        inputs=inputs,
        outputs=specs(library.TensorIOMode.OUTPUT),
        dtypes=dtypes,
        on_host=frozenset(name for name in names if engine.get_tensor_location(name) == host),
        profiles=tuple(_profile(engine, inputs, index) for index in range(engine.num_optimization_profiles)),
    )


def validity(library: Any, runtime: Any, content: bytes) -> str:
    """Why an engine does not fit this system, in the library's words; empty where it cannot tell (full TensorRT)."""
    if not hasattr(runtime, "get_engine_validity"):
        return ""
    state, flags = runtime.get_engine_validity(content)
    if state != library.EngineValidity.INVALID:
        return ""
    reasons = library.EngineInvalidityDiagnostics.__members__
    return ", ".join(name.lower().replace("_", " ") for name, value in reasons.items() if int(flags) & int(value))


def _profile(engine: Any, inputs: tuple[TensorSpec, ...], index: int) -> Profile:
    shapes = {}
    for spec in inputs:
        if -1 in spec.shape:
            least, best, most = map(_sizes, engine.get_tensor_profile_shape(spec.name, index))
            shapes[spec.name] = ShapeRange(minimum=least, optimum=best, maximum=most)
    return Profile(shapes=shapes)


def _sizes(shape: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in shape)
