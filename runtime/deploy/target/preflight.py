"""Whether a bundle can run on this computer at all: asked before a byte of it is sent."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import time
from importlib.metadata import version

import msgspec

from memrt.runtime.bench.hardware import versions
from memrt.runtime.bundle_needs import needed_backend, served_gpus
from memrt.runtime.deploy.target.layout import Layout
from memrt.runtime.engine.cuda import CudaDevice
from memrt.runtime.engine.tensorrt_library import NAMES
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import Manifest

ROOM = 2  # times the bundle: it, and the engines that are built from it
CLOCK_S = 300.0  # the two clocks may differ by: dates in ledger, recordings and logs are compared across computers
_ONNXRUNTIME = ("onnxruntime", "onnxruntime-gpu")


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """This computer. `sm`: compute capability (8.7 is 87); `backends`: versions of the inference libraries.

    `clock_offset_s`: this clock minus the workstation's; `service`: the service's phase, or `not running`.
    """

    architecture: str
    python: str
    memrt: str
    gpu: str = ""
    sm: int | None = None
    driver: str = ""
    backends: dict[str, str]
    free_bytes: int
    clock_offset_s: float
    service: str
    current: str | None
    runtime: str | None


def find_facts(layout: Layout, their_now_s: float, service: str, current: str | None, runtime: str | None) -> Facts:
    """Look. Nothing is loaded but the CUDA driver's library."""
    try:
        gpu = CudaDevice().gpu
    except MemrtError:
        gpu = None
    here = versions(("memrt", *_ONNXRUNTIME))
    backends = {}
    if found := next((here[name] for name in _ONNXRUNTIME if name in here), None):
        backends["onnxruntime"] = found
    for module in NAMES:
        if importlib.util.find_spec(module) is not None:
            backends[module] = _version(module)
    return Facts(
        architecture=platform.machine(),
        python=platform.python_version(),
        memrt=here.get("memrt", "unknown"),
        gpu="" if gpu is None else gpu.name,
        sm=None if gpu is None else gpu.sm,
        driver="" if gpu is None else gpu.driver,
        backends=backends,
        free_bytes=shutil.disk_usage(layout.root).free,
        clock_offset_s=round(time.time() - their_now_s, 1),
        service=service,
        current=current,
        runtime=runtime,
    )


def check(facts: Facts, manifest: Manifest, size: int, *, staged: int = 0) -> None:
    """Raises MemrtError for the first thing that stands in the way of a bundle of `size` bytes.

    `staged` of them are here already.
    """
    backend = needed_backend(manifest)
    if backend not in facts.backends:
        raise MemrtError(
            f"bundle `{manifest.name}` on this computer",
            expected=f"the package {backend}, which runs its engines",
            found=", ".join(facts.backends) or "no inference library",
            fix="flash with a --runtime that was made for this computer, or export for another --target",
        )
    if backend != "onnxruntime":
        _check_gpu(facts, manifest)
    if facts.free_bytes + staged < ROOM * size:
        raise MemrtError(
            "the disk of the robot's computer",
            expected=f"{ROOM * size / 1e6:.0f} MB free, {ROOM} times the bundle",
            found=f"{(facts.free_bytes + staged) / 1e6:.0f} MB",
            fix="remove recordings, or what else fills it",
        )
    if abs(facts.clock_offset_s) > CLOCK_S:
        raise MemrtError(
            "the clock of the robot's computer",
            expected=f"the workstation's, to {CLOCK_S:.0f} s",
            found=f"{facts.clock_offset_s:+.0f} s",
            fix="timedatectl set-ntp true, there or here",
        )


def _check_gpu(facts: Facts, manifest: Manifest) -> None:
    served = served_gpus(manifest)
    if facts.sm is None or (served and facts.sm not in served):
        raise MemrtError(
            f"bundle `{manifest.name}`, exported for {manifest.target}",
            expected="a GPU" + (f" with compute capability {', '.join(map(str, served))}" if served else ""),
            found="no GPU, or no driver" if facts.sm is None else f"{facts.gpu} (SM {facts.sm})",
            fix="export it for this computer: `memrt export --target`" if facts.sm else "install NVIDIA's driver",
        )


def _version(module: str) -> str:
    for package in (module, f"{module.replace('_', '-')}-cu13", f"{module.replace('_', '-')}-cu12"):
        try:
            return version(package)
        except ModuleNotFoundError:
            continue
    return "unknown"
