"""Makes a bundle's engines ready on the computer that will run them, and proves them there.

Bundles for ONNX Runtime, and those with TensorRT for RTX engines, come ready to run: only the proof is made. Bundles
with recipes get their engines built first. The proof is the device gate: every engine reproduces the bundle's golden
samples. It holds for one GPU, driver and set of engine hashes; `proven` finds it again, for whoever arms a robot.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from memrt.runtime.bundle import Bundle, sha256_of
from memrt.runtime.device_cache import (
    RECORD,
    BuildRecord,
    BuiltEngine,
    DeviceInfo,
    built_elsewhere,
    default_cache,
    device_folder,
    load_built,
    read_record,
    this_cpu,
    this_gpu,
    writable,
    write_record,
)
from memrt.runtime.engine import open_engine
from memrt.runtime.engine.golden import reproduce
from memrt.runtime.engine.tensorrt_builder import BuildReport, Progress, build_engine_file
from memrt.runtime.engine.tensorrt_library import SUFFIXES
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import NOT_YET_PROVEN
from memrt.runtime.recipe import Recipe, read_recipes, recipe_file

PROOF = "proof.json"
# Weights an engine may hold over what its recipe says they need: padding, scales, small fp32 tables. A silent fp32
# engine holds two to eight times as much.
WEIGHT_SLACK, WEIGHT_SLACK_BYTES = 1.25, 1 << 20

Builder = Callable[..., BuildReport]


class Proof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The device gate passed: on this device, with these engines (SHA-256 by name), with these agreements."""

    schema_version: Literal[1] = 1
    bundle: str
    device: DeviceInfo
    engines: dict[str, str]
    agreement: dict[str, dict[str, Any]]


def this_device(bundle: Bundle) -> DeviceInfo:
    """What would run the bundle's engines here. Raises `MemrtError` when the library or the GPU is missing."""
    if read_recipes(bundle):
        return this_gpu("tensorrt")
    kinds = {Path(record.file).suffix for record in bundle.manifest.engines.values()}
    gpu = sorted(kinds & SUFFIXES.keys())
    return this_gpu(SUFFIXES[gpu[0]]) if gpu else this_cpu()


def build_engines(
    bundle: Bundle,
    device: DeviceInfo,
    *,
    cache: Path | None = None,
    rebuild: bool = False,
    progress: Progress | None = None,
    builder: Builder = build_engine_file,
) -> BuildRecord | None:
    """Build what the bundle's recipes ask for into the cache; None when it has none. Engines already there are kept.

    `rebuild` throws away what was built for this device before. Raises `MemrtError` when a build fails, or when what is
    there is not what was built (then only `rebuild` helps).
    """
    recipes = read_recipes(bundle)
    if not recipes:
        return None
    cache = writable(cache or default_cache(bundle))
    folder = device_folder(cache, bundle, device)
    say = progress or (lambda line: None)
    if rebuild:
        shutil.rmtree(folder, ignore_errors=True)
    if (record := load_built(bundle, device, cache)) is not None:
        say(f"engines for {device.describe()} are built already")
        return record
    engines: dict[str, BuiltEngine] = {}
    for name, recipe in sorted(recipes.items()):
        say(f"{name}: building ({recipe.precision})")
        out = folder / f"{name.replace('/', '_')}.engine"
        report = builder(
            bundle.file(recipe.graph),
            out,
            backend=recipe.backend,
            profiles=recipe.profiles,
            workspace_bytes=recipe.workspace_bytes,
            timing_cache=cache / f"{recipe.timing_cache}-sm{device.sm}-{device.version}.timing",
            progress=lambda line, name=name: say(f"{name}: {line}"),
        )
        check_weights(recipe, report)
        engines[name] = BuiltEngine(
            file=out.name,
            sha256=report.sha256,
            size=report.engine_bytes,
            recipe=bundle.manifest.files[recipe_file(name)].sha256,
            seconds=report.seconds,
            peak_bytes=report.peak_bytes,
        )
        say(f"{name}: {report.engine_bytes / 1e6:.1f} MB in {report.seconds:.0f} s")
    built = BuildRecord(bundle=bundle.sha256, device=device, engines=engines)
    write_record(folder / RECORD, built)
    return built


def check_weights(recipe: Recipe, report: BuildReport) -> None:
    """Refuse an engine that holds far more weight bytes than its precision needs: it fell back to a wider type."""
    held = report.weights_bytes if report.weights_bytes is not None else report.engine_bytes
    if held > recipe.weights_bytes * WEIGHT_SLACK + WEIGHT_SLACK_BYTES:
        raise MemrtError(
            f"{recipe.engine} was not built in {recipe.precision}",
            expected=f"about {recipe.weights_bytes / 1e6:.1f} MB of weights",
            found=f"{held / 1e6:.1f} MB, types {report.weight_types or 'unknown'}",
            fix="use the TensorRT version that the bundle's target names, or export in a precision this GPU has",
        )


def engine_files(bundle: Bundle, device: DeviceInfo, *, cache: Path | None = None) -> dict[str, Path]:
    """The file to open for every engine of the bundle on this device: the bundle's own, or the one built here.

    Raises `MemrtError` when engines must be built first; says so when they were built for another GPU or version.
    """
    files = {name: bundle.file(record.file) for name, record in bundle.manifest.engines.items()}
    recipes = read_recipes(bundle)
    if not recipes:
        return files
    cache = cache or default_cache(bundle)
    record = load_built(bundle, device, cache)
    if record is None or set(record.engines) != set(recipes):
        others = [other.device.describe() for other in built_elsewhere(bundle, cache)]
        raise MemrtError(
            f"the engines of {bundle.path} are not built for this computer",
            expected=f"engines for {device.describe()}",
            found=f"engines for {'; '.join(others)}" if others else "none",
            fix=f"run memrt build {bundle.path}",
        )
    folder = device_folder(cache, bundle, device)
    return files | {name: folder / engine.file for name, engine in record.engines.items()}


def kernel_cache(bundle: Bundle, device: DeviceInfo, engine: str, *, cache: Path | None = None) -> Path | None:
    """Where the kernels that TensorRT for RTX compiles on first use are kept for an engine; None for other backends.

    The device gate fills it, so that the first start of a robot does not wait for the compiler.
    """
    if device.backend != "tensorrt_rtx":
        return None
    return device_folder(cache or default_cache(bundle), bundle, device) / f"{engine.replace('/', '_')}.kernels"


def prove(
    bundle: Bundle,
    device: DeviceInfo,
    *,
    cache: Path | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> Proof:
    """The device gate: run every engine on its golden samples, and record that all agree.

    Raises `MemrtError` for the first engine that does not, for engines without golden samples, and for missing engines.
    """
    cache = writable(cache or default_cache(bundle))
    files = engine_files(bundle, device, cache=cache)
    agreement: dict[str, dict[str, Any]] = {}
    for name, path in sorted(files.items()):
        golden, limits = golden_of(bundle, name)
        engine = open_engine(path, threads=threads, runtime_cache=kernel_cache(bundle, device, name, cache=cache))
        try:
            found = reproduce(name, engine, golden, limits)
        finally:
            engine.close()
        agreement[name] = {**found.to_dict(), "threshold": dict(limits)}
        if progress is not None:
            progress(f"{name}: cosine {found.cosine:.6f}, relative L2 {found.relative_l2:.1e} over {found.samples}")
    proof = Proof(bundle=bundle.sha256, device=device, engines=_hashes(bundle, files), agreement=agreement)
    write_record(device_folder(cache, bundle, device) / PROOF, proof)
    return proof


def proven(bundle: Bundle, device: DeviceInfo | None = None, *, cache: Path | None = None) -> Proof | None:
    """The proof for this bundle on this device, or None: never made, or for another driver or other engines.

    Hashes every engine file. Raises `MemrtError` when the library, the GPU or built engines are missing or damaged.
    """
    device = device or this_device(bundle)
    cache = cache or default_cache(bundle)
    proof = read_record(device_folder(cache, bundle, device) / PROOF, Proof)
    if proof is None or proof.bundle != bundle.sha256 or proof.device != device:
        return None
    files = engine_files(bundle, device, cache=cache)
    return proof if proof.engines == _hashes(bundle, files) else None


def require_proven(bundle: Bundle, device: DeviceInfo | None = None, *, cache: Path | None = None) -> Proof:
    """The proof without which no physical robot is armed (`proven`). Raises `MemrtError` when there is none."""
    device = device or this_device(bundle)
    proof = proven(bundle, device, cache=cache)
    if proof is None:
        raise MemrtError(
            f"{bundle.path} is {NOT_YET_PROVEN}",
            expected=f"a proof that its engines compute on {device.describe()} what was exported",
            found="none for this device, its driver and these engines",
            fix=f"run memrt build {bundle.path}" + (f" --cache {cache}" if cache else ""),
        )
    return proof


def golden_of(bundle: Bundle, name: str) -> tuple[Path, Mapping[str, float]]:
    """An engine's file of golden samples, and the thresholds it is held to. Raises `MemrtError` when it has none."""
    gate = bundle.manifest.engines[name].gate
    golden, limits = gate.get("golden"), gate.get("threshold")
    complete = isinstance(limits, dict) and {"cosine", "relative_l2"} <= limits.keys()
    if not isinstance(golden, str) or not isinstance(limits, dict) or not complete:
        raise MemrtError(
            f"{name} of {bundle.path} cannot be proven",
            expected="golden samples and a threshold in the manifest's record of its gate",
            found=sorted(gate),
            fix="export the policy again",
        )
    return bundle.file(golden), limits


def _hashes(bundle: Bundle, files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of every engine; a graph's external data counts with it."""
    hashes = {}
    for name, path in sorted(files.items()):
        data = path.with_name(f"{path.name}.data")
        hashes[name] = "+".join(sha256_of(part) for part in (path, data) if part.is_file())
    return hashes
