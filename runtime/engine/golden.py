"""The device gate: the computer that will drive the robot repeats the bundle's golden samples with its own engines.

A golden file holds the inputs of an engine and the outputs of the torch model for them. Whatever this computer does
differently (another CPU, another version of the runtime), its engines must stay inside the thresholds that the bundle's
manifest states.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrt.runtime.engine.agreement import Agreement, compare
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import Engine

Sample = dict[str, NDArray[Any]]


def read_golden(path: Path) -> tuple[list[Sample], list[Sample]]:
    """Read (inputs, outputs) of every sample of a golden file. Raises `MemrtError` when the file is not one."""
    feeds: dict[int, Sample] = {}
    outputs: dict[int, Sample] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for key in file.files:
                index, side, name = key.split("/", 2)
                {"in": feeds, "out": outputs}[side].setdefault(int(index), {})[name] = file[key]
    except (OSError, ValueError, KeyError) as error:
        raise MemrtError(
            f"cannot read golden samples from {path}",
            expected="an npz of <index>/in/<name> and <index>/out/<name>",
            found=str(error),
            fix="verify the bundle, or export it again",
        ) from error
    if not feeds or set(feeds) != set(outputs):
        raise MemrtError(
            f"golden samples in {path} are incomplete",
            expected="inputs and outputs for every sample",
            found=f"inputs of {sorted(feeds)}, outputs of {sorted(outputs)}",
            fix="export the bundle again",
        )
    return [feeds[i] for i in sorted(feeds)], [outputs[i] for i in sorted(outputs)]


def reproduce(name: str, engine: Engine, golden: Path, limits: Mapping[str, float]) -> Agreement:
    """Run `engine` on its golden inputs and hold it to `limits` ("cosine", "relative_l2").

    Samples of floats are rounded to the width that the engine takes: one set serves engines of every precision.
    Raises `MemrtError` when this computer's engine does not reproduce the golden outputs.
    """
    feeds, expected = read_golden(golden)
    agreement = compare(expected, [engine.run(_in_width_of(engine, feed)) for feed in feeds])
    if agreement.cosine < limits["cosine"] or agreement.relative_l2 > limits["relative_l2"]:
        raise MemrtError(
            f"{name} does not reproduce its golden outputs on this computer",
            expected=f"cosine >= {limits['cosine']}, relative L2 <= {limits['relative_l2']}",
            found=f"cosine {agreement.cosine:.6f}, relative L2 {agreement.relative_l2:.2e} ({agreement.worst})",
            fix="do not arm the robot; use the runtime versions the manifest names, or export for this computer",
        )
    return agreement


def _in_width_of(engine: Engine, feed: Sample) -> Sample:
    """The feed with floats as wide as the engine's inputs; integers, and names it does not know, are its to refuse."""
    wanted = {spec.name: np.dtype(spec.dtype) for spec in engine.inputs}
    return {
        name: array.astype(wanted[name], copy=False) if _both_floats(array.dtype, wanted.get(name)) else array
        for name, array in feed.items()
    }


def _both_floats(found: np.dtype[Any], wanted: np.dtype[Any] | None) -> bool:
    return wanted is not None and found.kind == "f" and wanted.kind == "f"
