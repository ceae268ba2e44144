"""What a bundle asks of a computer, from its manifest alone: the library that runs its engines, the GPUs it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from memrt.runtime.engine.tensorrt_library import SUFFIXES
from memrt.runtime.manifest import Manifest
from memrt.runtime.packaged import packaged_file, packaged_names
from memrt.runtime.recipe import FOLDER
from memrt.runtime.strict_config import read_yaml


def needed_backend(manifest: Manifest) -> str:
    """The library that runs the bundle's engines: onnxruntime, tensorrt or tensorrt_rtx."""
    if any(file.startswith(f"{FOLDER}/") for file in manifest.files):
        return "tensorrt"
    kinds = {Path(engine.file).suffix for engine in manifest.engines.values()} & SUFFIXES.keys()
    return SUFFIXES[min(kinds)] if kinds else "onnxruntime"


def served_gpus(manifest: Manifest) -> tuple[int, ...]:
    """Compute capabilities (8.7 is 87) that the target is for; empty for CPUs and for targets of one's own."""
    if manifest.target not in packaged_names("targets"):
        return ()
    path = packaged_file("targets", manifest.target, what="target", file="a target YAML")
    values: dict[str, Any] = read_yaml(path)
    return tuple(values.get("sm", ()))
