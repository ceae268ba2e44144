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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrt.runtime.engine.agreement import Tensors, compare
from memrt.runtime.errors import MemrtError

CHAIN = "ll/chain"
GRIPPER = "ll/gripper"
ANSWERS = "hl/answers"


@dataclass(frozen=True, slots=True)
class Threshold:
    """Least cosine similarity and largest relative L2 error on the worst sample."""

    cosine: float
    relative_l2: float

    def to_dict(self) -> dict[str, float]:
        """As plain JSON values."""
        return asdict(self)


# One table for all gates; "*" is any engine. fp32 differs from torch by summation order only (measured: 1e-7 to 1e-6).
# int8: the error of a robot's joints matters, so the chain is held to less than the engines feeding it.
THRESHOLDS: dict[str, dict[str, Threshold]] = {
    "fp32": {
        "*": Threshold(cosine=0.99999, relative_l2=1e-4),
        CHAIN: Threshold(cosine=0.99999, relative_l2=5e-4),
    },
    "int8": {
        "*": Threshold(cosine=0.995, relative_l2=0.10),
        CHAIN: Threshold(cosine=0.998, relative_l2=0.06),
    },
}
# Least share of gripper commands (open or closed) that equal torch's. At the very step where the hand closes, a
# network is undecided; which of two neighbouring steps it takes is no error of the arithmetic.
GRIPPER_FLOOR: dict[str, float] = {"fp32": 1.0, "int8": 0.98}
# Least share of answer positions whose most likely token equals torch's.
ANSWER_FLOOR: dict[str, float] = {"fp32": 1.0, "int8": 0.98}


def threshold(engine_name: str, precision: str) -> Threshold:
    """The threshold of an engine; raises `MemrtError` for a precision that has none."""
    table = THRESHOLDS.get(precision)
    if table is None:
        raise MemrtError(
            "no thresholds for this precision", expected=sorted(THRESHOLDS), found=precision, fix="choose one of them"
        )
    return table.get(engine_name, table["*"])


def gate(
    engine_name: str, precision: str, reference: Sequence[Tensors], candidate: Sequence[Tensors]
) -> dict[str, Any]:
    """Compare and judge; returns the manifest's record of the gate, raises `MemrtError` on failure."""
    limits = threshold(engine_name, precision)
    agreement = compare(reference, candidate)
    if agreement.cosine < limits.cosine or agreement.relative_l2 > limits.relative_l2:
        raise MemrtError(
            f"{engine_name} ({precision}) does not agree with the torch model",
            expected=f"cosine >= {limits.cosine}, relative L2 <= {limits.relative_l2} on the worst sample",
            found=f"cosine {agreement.cosine:.6f}, relative L2 {agreement.relative_l2:.2e} ({agreement.worst})",
            fix=_fix(precision),
        )
    return {**agreement.to_dict(), "threshold": limits.to_dict()}


def gripper_agreement(
    precision: str, reference: Sequence[NDArray[np.bool_]], candidate: Sequence[NDArray[np.bool_]]
) -> dict[str, Any]:
    """Judge the gripper commands of whole chunks, bool [horizon] each; raises `MemrtError` below the floor."""
    equal = np.concatenate([a == b for a, b in zip(reference, candidate, strict=True)])
    share, floor = float(equal.mean()), GRIPPER_FLOOR[precision]
    if share < floor:
        raise MemrtError(
            f"{GRIPPER} ({precision}) does not open and close as the torch model does",
            expected=f"the same command at {floor:.0%} of the steps",
            found=f"{share:.1%} of {len(equal)}",
            fix=_fix(precision),
        )
    return {"identical": share, "steps": len(equal), "floor": floor}


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
    floor = ANSWER_FLOOR[precision]
    if share < floor:
        raise MemrtError(
            f"{ANSWERS} ({precision}) does not answer as the torch model does",
            expected=f"the same token at {floor:.0%} of the answer positions",
            found=f"{share:.1%} of {sum(len(e) for e in equal)}",
            fix=_fix(precision),
        )
    return {
        "identical_tokens": share,
        "identical_answers": float(np.mean([bool(e.all()) for e in equal])),
        "answers": len(equal),
        "floor": floor,
    }


def write_golden(path: Path, feeds: Sequence[Tensors], outputs: Sequence[Tensors]) -> None:
    """Write samples as `<index>/in/<name>` and `<index>/out/<name>` arrays of one npz; same arrays, same bytes."""
    arrays: dict[str, NDArray[Any]] = {}
    for i, (feed, output) in enumerate(zip(feeds, outputs, strict=True)):
        arrays.update({f"{i}/in/{name}": np.asarray(value) for name, value in sorted(feed.items())})
        arrays.update({f"{i}/out/{name}": np.asarray(value) for name, value in sorted(output.items())})
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type, unused-ignore]


def _fix(precision: str) -> str:
    if precision == "int8":
        return "record more calibration samples, list more modules under the target's keep_fp32, or export as fp32"
    return "the exported graph computes something else than the model: this is a defect of the export, report it"
