"""How well one engine's outputs agree with a reference: the worst output of the worst sample decides.

An average hides the one sample that makes a robot miss, so agreement is a minimum, never a mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrt.runtime.errors import MemrtError

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Worst cosine similarity and worst relative L2 error ‖candidate − reference‖ / ‖reference‖ over all samples.

    `worst` names the output and sample with the largest relative error; `samples` is how many were compared.
    """

    cosine: float
    relative_l2: float
    worst: str
    samples: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "cosine": self.cosine,
            "relative_l2": self.relative_l2,
            "worst": self.worst,
            "samples": self.samples,
        }


def compare(reference: Sequence[Tensors], candidate: Sequence[Tensors]) -> Agreement:
    """Compare outputs by name, sample by sample.

    A non-finite candidate has cosine −1 and infinite error. Raises `MemrtError` when the samples, the names or the
    shapes differ, or when there is nothing to compare.
    """
    if not reference or len(reference) != len(candidate):
        raise MemrtError(
            "cannot compare outputs",
            expected="as many candidate as reference samples, at least one",
            found=f"{len(candidate)} and {len(reference)}",
            fix="run both on the same feeds",
        )
    cosine, error, worst = 1.0, -1.0, ""
    for i, (expected, found) in enumerate(zip(reference, candidate, strict=True)):
        if set(expected) != set(found):
            raise MemrtError(
                "cannot compare outputs", expected=sorted(expected), found=sorted(found), fix="compare the same graph"
            )
        for name in expected:
            similarity, distance = _agreement_of(name, expected[name], found[name])
            cosine = min(cosine, similarity)
            if distance > error:
                error, worst = distance, f"{name}, sample {i}"
    return Agreement(cosine=cosine, relative_l2=error, worst=worst, samples=len(reference))


def _agreement_of(name: str, reference: NDArray[Any], candidate: NDArray[Any]) -> tuple[float, float]:
    """(cosine, relative L2) of one tensor, in float64."""
    if reference.shape != candidate.shape:
        raise MemrtError(
            f"cannot compare output '{name}'",
            expected=list(reference.shape),
            found=list(candidate.shape),
            fix="compare the same graph on the same feeds",
        )
    a = np.asarray(reference, np.float64).ravel()
    b = np.asarray(candidate, np.float64).ravel()
    if not np.all(np.isfinite(b)):
        return -1.0, float("inf")
    norm_a, norm_b = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if norm_a == 0.0 or norm_b == 0.0:  # no direction: equal, or as different as can be
        return (1.0, 0.0) if norm_a == norm_b else (-1.0, float("inf") if norm_a == 0.0 else 1.0)
    return min(1.0, float(a @ b) / (norm_a * norm_b)), float(np.linalg.norm(b - a)) / norm_a
