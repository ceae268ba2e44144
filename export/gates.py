"""The gate: no engine enters a bundle without agreeing with the torch model it came from, on its worst sample.

Three gates, each stricter about what matters further down the line:
- *engine gate*: every engine alone, on recorded inputs, against torch.
- *chain gate*: a whole low-level call (vision, prefix, all denoise steps) with the same noise: the arm's motion, and
  the gripper's open and closed.
- *answer gate*: the high level reading its own recorded answers (teacher forcing): the share of positions where the
  most likely token is the same.

Golden inputs and outputs of every engine travel in the bundle, so that the robot's own computer can repeat the engine
gate with its own engines (`memrt.runtime.engine.golden`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrt.export.gate_thresholds import (
    ANSWER_FLOOR,
    ANSWERS,
    GRIPPER,
    GRIPPER_FLOOR,
    HIGH_LEVEL_CHAIN,
    LOW_LEVEL_CHAIN,
    REHEARSAL,
    THRESHOLDS,
    Threshold,
    of_precision,
    threshold,
)
from memrt.runtime.engine.agreement import Agreement, Tensors, compare
from memrt.runtime.errors import MemrtError

CHAIN = LOW_LEVEL_CHAIN

__all__ = [
    "ANSWERS",
    "ANSWER_FLOOR",
    "CHAIN",
    "GRIPPER",
    "GRIPPER_FLOOR",
    "HIGH_LEVEL_CHAIN",
    "LOW_LEVEL_CHAIN",
    "REHEARSAL",
    "THRESHOLDS",
    "GateError",
    "Threshold",
    "answer_agreement",
    "gate",
    "golden_file",
    "gripper_agreement",
    "judge",
    "threshold",
    "write_golden",
]


class GateError(MemrtError):
    """A gate that failed; `record` is what it measured, for the report and for a better plan."""

    def __init__(self, what: str, *, expected: object, found: object, fix: str, record: dict[str, Any]) -> None:
        super().__init__(what, expected=expected, found=found, fix=fix)
        self.record = record


def gate(
    engine_name: str,
    precision: str,
    reference: Sequence[Tensors],
    candidate: Sequence[Tensors],
    *,
    random_weights: bool = False,
) -> dict[str, Any]:
    """Compare and judge; returns the manifest's record of the gate, raises `GateError` (a `MemrtError`)."""
    return judge(engine_name, precision, compare(reference, candidate), random_weights=random_weights)


def judge(engine_name: str, precision: str, agreement: Agreement, *, random_weights: bool = False) -> dict[str, Any]:
    """Hold a measured agreement to the table. A rehearsal on random weights says so in its record."""
    limits = threshold(engine_name, precision)
    record = {**agreement.to_dict(), "threshold": limits.to_dict(), **label(random_weights)}
    # Written so that a NaN fails.
    if not (agreement.cosine >= limits.cosine and agreement.relative_l2 <= limits.relative_l2):
        raise GateError(
            f"{engine_name} ({precision}) does not agree with the torch model",
            expected=f"cosine >= {limits.cosine}, relative L2 <= {limits.relative_l2} on the worst sample",
            found=f"cosine {agreement.cosine:.6f}, relative L2 {agreement.relative_l2:.2e} ({agreement.worst})",
            fix=_fix(precision),
            record=record,
        )
    return record


def label(random_weights: bool) -> dict[str, str]:
    """What a gate's record adds when the weights were random."""
    return {"label": REHEARSAL} if random_weights else {}


def gripper_agreement(
    precision: str, reference: Sequence[NDArray[np.bool_]], candidate: Sequence[NDArray[np.bool_]]
) -> dict[str, Any]:
    """Judge the gripper commands of whole chunks, bool [horizon] each; raises `MemrtError` below the floor."""
    equal = np.concatenate([a == b for a, b in zip(reference, candidate, strict=True)])
    share, floor = float(equal.mean()), of_precision(GRIPPER_FLOOR, precision)
    record = {"identical": share, "steps": len(equal), "floor": floor}
    if share < floor:
        raise GateError(
            f"{GRIPPER} ({precision}) does not open and close as the torch model does",
            expected=f"the same command at {floor:.0%} of the steps",
            found=f"{share:.1%} of {len(equal)}",
            fix=_fix(precision),
            record=record,
        )
    return record


def answer_agreement(
    precision: str, reference: Sequence[NDArray[Any]], candidate: Sequence[NDArray[Any]]
) -> dict[str, Any]:
    """Judge the answer gate; each item holds one answer's most likely token ids, int [n].

    Returns {"identical_tokens", "identical_answers", "answers", "floor"} (shares 0..1), raises `MemrtError` below
    the floor.
    """
    if not reference or [len(a) for a in reference] != [len(b) for b in candidate]:
        raise MemrtError(
            "cannot compare answers",
            expected="the same answers, at least one",
            found=f"{len(reference)} and {len(candidate)} answers",
            fix="read the same samples with both models",
        )
    equal = [np.asarray(a) == np.asarray(b) for a, b in zip(reference, candidate, strict=True)]
    share = float(np.mean(np.concatenate(equal)))
    floor = of_precision(ANSWER_FLOOR, precision)
    record = {
        "identical_tokens": share,
        "identical_answers": float(np.mean([bool(e.all()) for e in equal])),
        "answers": len(equal),
        "floor": floor,
    }
    if share < floor:
        raise GateError(
            f"{ANSWERS} ({precision}) does not answer as the torch model does",
            expected=f"the same token at {floor:.0%} of the answer positions",
            found=f"{share:.1%} of {sum(len(e) for e in equal)}",
            fix=_fix(precision),
            record=record,
        )
    return record


def golden_file(engine_name: str) -> str:
    """Where the golden samples of an engine lie in a bundle: those of `hl/decoder` in `golden/hl_decoder.npz`."""
    return f"golden/{engine_name.replace('/', '_')}.npz"


def write_golden(path: Path, feeds: Sequence[Tensors], outputs: Sequence[Tensors]) -> None:
    """Write samples as `<index>/in/<name>` and `<index>/out/<name>` arrays of one npz; same arrays, same bytes."""
    arrays: dict[str, NDArray[Any]] = {}
    for i, (feed, output) in enumerate(zip(feeds, outputs, strict=True)):
        arrays.update({f"{i}/in/{name}": np.asarray(value) for name, value in sorted(feed.items())})
        arrays.update({f"{i}/out/{name}": np.asarray(value) for name, value in sorted(output.items())})
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type, unused-ignore]


def _fix(precision: str) -> str:
    if precision == "fp32":
        return "the exported graph computes something else than the model: this is a defect of the export, report it"
    if precision in ("fp16", "bf16"):
        other = "bf16 (a wider range)" if precision == "fp16" else "fp16 (finer steps)"
        return f"keep more weights in fp32 in the plan, or compute in {other}"
    return "record more calibration samples, keep more weights in a better scheme (plan or target), or export as fp32"
