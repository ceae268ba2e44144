"""The one table of thresholds: what every gate asks for, at every precision.

Where the figures come from. *measured*: on the reference policies. *emulated*: a decoder of 36 layers (width 1024,
Gaussian weights whose residual branches are scaled by 1/√72, embeddings of deviation 1), each scheme's logits against
fp32; the threshold is about twice that figure, because real activations have outliers. Either way a wrong engine is
far outside: fp16 accumulators that overflow gave cosine 0.395.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TypeVar

from memrt.runtime.errors import MemrtError

LOW_LEVEL_CHAIN = "ll/chain"  # vision, prefix and all denoise steps: the arm's motion in one chunk
HIGH_LEVEL_CHAIN = "hl/chain"  # vision and decoder: the logits of one call
GRIPPER = "ll/gripper"
ANSWERS = "hl/answers"

# What the record of a gate says when the weights are `random:`: the plumbing worked, nothing is known about a policy.
REHEARSAL = "rehearsal: random weights"

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Threshold:
    """Least cosine similarity and largest relative L2 error on the worst sample."""

    cosine: float
    relative_l2: float

    def to_dict(self) -> dict[str, float]:
        """As plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class EpisodeThreshold:
    """On recorded episodes, beside the fp32 bundle: least shares of answers with the same subgoal and of equal gripper
    commands, and the largest relative L2 error of the arm's motion, averaged and worst.
    """

    identical_subgoal: float
    identical_gripper: float
    relative_l2_mean: float
    relative_l2_worst: float

    def to_dict(self) -> dict[str, float]:
        """As plain JSON values."""
        return asdict(self)


# "*" is any engine. The error of a robot's joints matters, so a chain is held to less than the engines feeding it
# wherever its own steps do not add up (int8 and better).
THRESHOLDS: dict[str, dict[str, Threshold]] = {
    # Differs from torch by summation order only (measured: 1e-7 to 1e-6).
    "fp32": {
        "*": Threshold(cosine=0.99999, relative_l2=1e-4),
        LOW_LEVEL_CHAIN: Threshold(cosine=0.99999, relative_l2=5e-4),
        HIGH_LEVEL_CHAIN: Threshold(cosine=0.99999, relative_l2=5e-4),
    },
    # Emulated: 0.002. Its range, not its steps, is what fails: an overflow is an infinity, and no threshold helps it.
    "fp16": {
        "*": Threshold(cosine=0.9999, relative_l2=0.01),
        LOW_LEVEL_CHAIN: Threshold(cosine=0.9999, relative_l2=0.01),
    },
    # Emulated: 0.019 with activations in bf16 throughout.
    "bf16": {
        "*": Threshold(cosine=0.999, relative_l2=0.04),
        LOW_LEVEL_CHAIN: Threshold(cosine=0.999, relative_l2=0.03),
    },
    # Measured: chain 0.036. Emulated: 0.037.
    "int8": {
        "*": Threshold(cosine=0.995, relative_l2=0.10),
        LOW_LEVEL_CHAIN: Threshold(cosine=0.998, relative_l2=0.06),
    },
    # Emulated: 0.071, one scale per weight row and one for the activations.
    "fp8": {
        "*": Threshold(cosine=0.988, relative_l2=0.15),
        LOW_LEVEL_CHAIN: Threshold(cosine=0.99, relative_l2=0.12),
    },
    # Emulated: 0.223 (blocks of 128, nearest rounding), 0.185 (blocks of 32).
    "int4": {
        "*": Threshold(cosine=0.93, relative_l2=0.37),
        LOW_LEVEL_CHAIN: Threshold(cosine=0.97, relative_l2=0.24),
    },
    # Emulated: 0.249 with activations in four bits too, 0.180 with weights alone.
    "nvfp4": {
        "*": Threshold(cosine=0.90, relative_l2=0.45),
        LOW_LEVEL_CHAIN: Threshold(cosine=0.96, relative_l2=0.28),
    },
}
# Least share of gripper commands (open or closed) that equal torch's. At the very step where the hand closes, a
# network is undecided; which of two neighbouring steps it takes is no error of the arithmetic.
GRIPPER_FLOOR: dict[str, float] = {
    "fp32": 1.0,
    "fp16": 0.99,
    "bf16": 0.98,
    "int8": 0.98,
    "fp8": 0.97,
    "int4": 0.95,
    "nvfp4": 0.95,
}
# Least share of answer positions whose most likely token equals torch's (measured in int8: 100 % of 48 answers).
ANSWER_FLOOR: dict[str, float] = {
    "fp32": 1.0,
    "fp16": 0.995,
    "bf16": 0.985,
    "int8": 0.98,
    "fp8": 0.97,
    "int4": 0.95,
    "nvfp4": 0.93,
}
# Measured in int8: the same subgoal in 94 % of 48 answers, chunks 0.036 apart at worst. One answer in ten is what
# separates policies whose success differs visibly; below that a closed loop has to tell (`--gate sim`).
EPISODES: dict[str, EpisodeThreshold] = {
    "fp32": EpisodeThreshold(1.0, 1.0, 5e-4, 5e-4),
    "fp16": EpisodeThreshold(0.97, 0.99, 0.01, 0.02),
    "bf16": EpisodeThreshold(0.95, 0.98, 0.03, 0.05),
    "int8": EpisodeThreshold(0.90, 0.98, 0.04, 0.08),
    "fp8": EpisodeThreshold(0.90, 0.97, 0.08, 0.15),
    "int4": EpisodeThreshold(0.85, 0.95, 0.15, 0.30),
    "nvfp4": EpisodeThreshold(0.85, 0.95, 0.18, 0.35),
}
# Of success on matched seeds, at the upper end of the paired 95 % interval, whatever the precision: 10 points.
MOST_SUCCESS_LOST = 0.10


def threshold(engine_name: str, precision: str) -> Threshold:
    """The threshold of an engine or chain; raises `MemrtError` for a precision that has none."""
    table = of_precision(THRESHOLDS, precision)
    return table.get(engine_name, table["*"])


def of_precision(table: Mapping[str, Value], precision: str) -> Value:
    """The entry of `precision`; raises `MemrtError` when there is none."""
    if precision not in table:
        raise MemrtError(
            "no thresholds for this precision", expected=sorted(table), found=precision, fix="choose one of them"
        )
    return table[precision]
