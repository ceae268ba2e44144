"""The child process of a build: reads a request on stdin, writes events on stdout, and the engine beside its place."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from memrt.runtime.engine.tensorrt_builder import BuildReport, BuildRequest, partial_path
from memrt.runtime.engine.tensorrt_library import NAMES, Messages, load_library, new_logger
from memrt.runtime.engine.tensorrt_profiles import Profile
from memrt.runtime.errors import MemrtError

_LAYERS = "Layers:\n"  # the builder's verbose list of compiled layers begins so
_WEIGHTS = re.compile(r"^Total Weights Memory: (\d+) bytes")
_LAYER = re.compile(r"^Name: .*?, LayerType: (\w+),.*?Constants: \[(.*?)\], Outputs: \[", re.MULTILINE)
_CONSTANT = re.compile(r"Dimensions: \[([\d,]*)\].*?Datatype: (\w+)")
_PRECISION = re.compile(
    r"precision|fall(?:ing)?[ -]?back|\bfp(?:32|16|8|4)\b|\bbf16\b|\bint(?:8|4)\b|\bcast", re.IGNORECASE
)


class _Listener:
    """Picks out of the library's many messages what a report needs."""

    def __init__(self) -> None:
        self.weights_bytes: int | None = None
        self.weight_types: dict[str, int] = {}
        self.layers = 0

    def __call__(self, severity: str, text: str) -> None:
        if match := _WEIGHTS.match(text):
            self.weights_bytes = int(match[1])
        elif severity == "VERBOSE" and text.startswith(_LAYERS):
            self.layers, self.weight_types = read_layers(text)


def read_layers(text: str) -> tuple[int, dict[str, int]]:
    """(number of layers, elements of the constants they read by type) from the builder's list of compiled layers."""
    layers = _LAYER.findall(text)
    types: Counter[str] = Counter()
    for _, constants in layers:
        for dims, dtype in _CONSTANT.findall(constants):
            types[dtype] += math.prod(int(size) for size in dims.split(",") if size)
    return len(layers), dict(sorted(types.items()))


def precision_warnings(warnings: list[str]) -> tuple[str, ...]:
    """Those that speak of number formats, without repetition."""
    return tuple(dict.fromkeys(" ".join(text.split()) for text in warnings if _PRECISION.search(text)))


def build(request: BuildRequest, library: Any) -> BuildReport:
    """Build as asked; the engine lies complete at `request.out` afterwards."""
    started = time.monotonic()
    listener = _Listener()
    messages = Messages(listener)
    logger = new_logger(library, messages)
    builder = library.Builder(logger)
    network = builder.create_network(_network_flags(library))
    parser = library.OnnxParser(network, logger)
    _say(f"reading {Path(request.graph).name}")
    if not parser.parse_from_file(request.graph):
        raise _parser_error(request, library, parser)
    config = builder.create_builder_config()
    config.profiling_verbosity = library.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, request.workspace_bytes)
    config.progress_monitor = _monitor(library)
    if request.sm:
        config.num_compute_capabilities = len(request.sm)
        for index, number in enumerate(request.sm):
            config.set_compute_capability(getattr(library.ComputeCapability, f"SM{number}"), index)
    _add_profiles(request, network, builder, config)
    cache = _timing_cache(request, config)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise MemrtError(
            f"{NAMES[request.backend]} {library.__version__} cannot build {Path(request.graph).name}",
            expected="a graph whose operators and types it compiles for these GPUs",
            found=messages.reason(),
            fix="choose another precision for the part that is named, or another target",
        )
    digest, size = _write(Path(request.out), engine)
    if cache is not None and request.timing_cache is not None:
        Path(request.timing_cache).write_bytes(bytes(config.get_timing_cache().serialize()))
    return BuildReport(
        backend=request.backend,
        version=library.__version__,
        sm=request.sm,
        engine_bytes=size,
        sha256=digest,
        seconds=round(time.monotonic() - started, 3),
        peak_bytes=_peak_bytes(),
        weights_bytes=listener.weights_bytes,
        weight_types=listener.weight_types,
        layers=listener.layers,
        profiles=max(1, len(request.profiles)),
        warnings=tuple(dict.fromkeys(" ".join(text.split()) for text in messages.warnings)),
        precision_warnings=precision_warnings(messages.warnings),
    )


def _network_flags(library: Any) -> int:
    """Strongly typed; a version that knows nothing else has no flag for it."""
    flag = getattr(library.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _parser_error(request: BuildRequest, library: Any, parser: Any) -> MemrtError:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    named = [f"node `{e.node_name()}` ({e.node_operator()}): {e.desc()}" for e in errors]
    return MemrtError(
        f"{NAMES[request.backend]} {library.__version__} refuses the graph {Path(request.graph).name}",
        expected="operators and types that its ONNX parser knows",
        found="; ".join(dict.fromkeys(named[:3])) or "no reason given",
        fix="export the graph for this target: U8 zero points and com.microsoft operators are for ONNX Runtime only",
    )


def _add_profiles(request: BuildRequest, network: Any, builder: Any, config: Any) -> None:
    inputs = {network.get_input(i).name: tuple(network.get_input(i).shape) for i in range(network.num_inputs)}
    dynamic = {name for name, shape in inputs.items() if -1 in shape}
    for number, profile in enumerate(request.profiles):
        _check_profile(request, number, profile, inputs, dynamic)
        made = builder.create_optimization_profile()
        for name, span in profile.shapes.items():
            made.set_shape(name, span.minimum, span.optimum, span.maximum)
        if config.add_optimization_profile(made) < 0:
            raise _profile_error(request, f"profile {number} was refused by the library")
    if dynamic and not request.profiles:
        raise _profile_error(request, f"no profile, but the dynamic inputs {', '.join(sorted(dynamic))}")


def _check_profile(
    request: BuildRequest, number: int, profile: Profile, inputs: dict[str, tuple[int, ...]], dynamic: set[str]
) -> None:
    if unknown := sorted(set(profile.shapes) - set(inputs)):
        raise _profile_error(request, f"profile {number} names `{unknown[0]}`, which is no input of the graph")
    if missing := sorted(dynamic - set(profile.shapes)):
        raise _profile_error(request, f"profile {number} leaves out the dynamic input `{missing[0]}`")
    for name, span in profile.shapes.items():
        fixed = zip(inputs[name], span.minimum, span.maximum, strict=False)
        if len(span.minimum) != len(inputs[name]) or any(size >= 0 and not size == a == b for size, a, b in fixed):
            raise _profile_error(
                request,
                f"profile {number} gives `{name}` {list(span.minimum)} to {list(span.maximum)}, the graph has "
                f"{list(inputs[name])}",
            )


def _profile_error(request: BuildRequest, found: str) -> MemrtError:
    return MemrtError(
        f"optimisation profiles of {Path(request.graph).name} do not fit the graph",
        expected="in every profile a range for every dynamic input, inside the graph's fixed dimensions (-1 is free)",
        found=found,
        fix="export the bundle again, or correct the profiles of the recipe",
    )


def _timing_cache(request: BuildRequest, config: Any) -> Any:
    """Only for full TensorRT: in TensorRT for RTX it has no effect but to ask for a GPU (release notes of 1.1)."""
    if request.timing_cache is None or request.backend != "tensorrt":
        return None
    path = Path(request.timing_cache)
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    config.set_timing_cache(cache, False)
    return cache


def _monitor(library: Any) -> Any:
    """Says the outermost phases; the builder goes through hundreds."""

    class Monitor(library.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            library.IProgressMonitor.__init__(self)
            self._outer: set[str] = set()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self._outer.add(phase_name)
            elif parent_phase in self._outer:
                _say(phase_name[:1].lower() + phase_name[1:])

        def phase_finish(self, phase_name: str) -> None:
            return None

        def step_complete(self, phase_name: str, step: int) -> bool:
            return True

    return Monitor()


def _write(out: Path, engine: Any) -> tuple[str, int]:
    """Write durably, then rename; returns SHA-256 and size."""
    partial, view = partial_path(out), memoryview(engine)
    with partial.open("wb") as file:
        file.write(view)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(out)
    return hashlib.sha256(view).hexdigest(), view.nbytes


def _peak_bytes() -> int:
    """This program's largest resident memory. Not `ru_maxrss`: that begins with the parent's, which exec inherits."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _say(text: str) -> None:
    _emit({"progress": text})


def _emit(event: dict[str, Any]) -> None:
    print(json.dumps(event), flush=True)


def main() -> None:
    """Serve one request."""
    try:
        request = msgspec.json.decode(sys.stdin.buffer.read(), type=BuildRequest)
        report = build(request, load_library(request.backend))
    except MemrtError as error:
        _emit({"error": error.parts})
    else:
        _emit({"report": msgspec.to_builtins(report)})


if __name__ == "__main__":
    main()
