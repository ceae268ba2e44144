"""Engines made by the streaming path without gates (the bench compares with torch itself), kept between runs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from memrt.export.code_digest import code_digest
from memrt.export.plan import EnginePlan
from memrt.export.streaming.artefact import Artefact, product_weights
from memrt.export.streaming.data_file import DataFile
from memrt.export.streaming.engine import explicit
from memrt.export.streaming.job import Job
from memrt.export.streaming.products import ProductSettings
from memrt.export.streaming.skeleton import Skeleton
from memrt.export.streaming.stages import Outputs
from memrt.export.streaming.stream import stream
from memrt.runtime.bench.hardware import versions

Progress = Callable[[str], None]
_VERSIONS = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "numpy")


def default_work_folder() -> Path:
    """Where engines are kept: `memrt/bench` in the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "memrt" / "bench"


def kept(work: Path, name: str, key: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
    """The folder `name` below `work` whose content follows from `key`, memrt's export code and its libraries.

    `make` fills it when it is not there. One with another key is of older code or settings and is removed: the largest
    takes 10 GB. The name is given to a finished folder only.
    """
    identity = {"name": name, "key": dict(key), "code": code_digest(), "versions": versions(_VERSIONS)}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    folder = work / name / digest
    if folder.is_dir():
        return folder
    shutil.rmtree(folder.parent, ignore_errors=True)
    partial = folder.with_suffix(".partial")
    partial.mkdir(parents=True)
    make(partial)
    partial.rename(folder)
    return folder


def make_engine(
    job: Job, skeleton: Skeleton, path: Path, plan: EnginePlan, keep_fp32: Sequence[str], progress: Progress
) -> list[Outputs]:
    """Write the graph of `job`, traced as `skeleton`, for ONNX Runtime to `path`, its weights beside it.

    Returns torch's outputs for the job's calibration samples; its gate samples are not used.
    """
    progress(f"making {job.name}, {plan.scheme}")
    chosen = explicit(plan, product_weights(skeleton.model), keep_fp32)
    artefact = Artefact.begin(skeleton, chosen, DataFile(path.with_name(f"{path.name}.data")), tensorrt=False)
    settings = ProductSettings(chosen, symmetric=False)
    streamed = stream(job.graph, job.units, job.calibration, (), settings, artefact, lambda line: _unit(line, progress))
    artefact.data.close()
    artefact.finish(path, streamed.products)
    return streamed.calibration


def _unit(line: str, progress: Progress) -> None:
    """The unit's name and number; without gate samples there is no damage to tell of."""
    progress("  " + line.partition(":")[0])
