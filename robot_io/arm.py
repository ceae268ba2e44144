"""An arm's joints and what its commands may never exceed, as the robot's YAML states them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import numpy as np

from memrt.runtime._core import Seam, SeamLimits
from memrt.runtime.strict_config import FieldError, Positive
from memrt.runtime.types import ARM_JOINTS, PROPRIOCEPTION_DIM, FloatArray

# A joint that the arm does not have stays at zero: half its range [rad], its speed, acceleration and jerk, which let
# the seam turn it round inside that range.
PADDING_RANGE = 1e-4
PADDING_RATES = (1.0, 1.0, 1000.0)
MARGIN = 0.02  # kept from both ends of every joint's range [rad], so that tracking errors do not reach the hard limits

PerJoint = Annotated[tuple[float, ...], msgspec.Meta(min_length=1, max_length=ARM_JOINTS)]
PositivePerJoint = Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1, max_length=ARM_JOINTS)]
Model = Literal["fr3", "panda"]

# libfranka's documentation, "Robot limits" of the Franka Emika Panda.
_PANDA = (
    (-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973),
    (2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973),
    (2.1750, 2.1750, 2.1750, 2.1750, 2.6100, 2.6100, 2.6100),
    (15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0),
    (7500.0, 3750.0, 5000.0, 6250.0, 7500.0, 10000.0, 10000.0),
)
# The pose that libfranka's examples begin in: 0, -π/4, 0, -3π/4, 0, π/2, π/4.
_READY = (0.0, -0.7853981634, 0.0, -2.3561944902, 0.0, 1.5707963268, 0.7853981634)


class ArmConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One arm of one to seven joints: a `model` that memrt knows, or every limit of an arm of your own.

    `q_min`, `q_max` [rad], `dq_max` [rad/s], `ddq_max` [rad/s²] and `dddq_max` [rad/s³] have a value per joint;
    `margin` [rad] is kept from both ends of each range by commands; a joint measured more than `tolerance` [rad]
    outside its range is a fault. Policies, the link and the seam speak of seven joints: those that a smaller arm lacks
    come last and stay at zero.
    """

    model: Model | None = None
    joints: tuple[str, ...] = ()
    q_min: PerJoint | None = None
    q_max: PerJoint | None = None
    dq_max: PositivePerJoint | None = None
    ddq_max: PositivePerJoint | None = None
    dddq_max: PositivePerJoint | None = None
    margin: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = MARGIN
    tolerance: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.0

    def __post_init__(self) -> None:
        own = {name: getattr(self, name) for name in ("q_min", "q_max", "dq_max", "ddq_max", "dddq_max")}
        given = [name for name, values in own.items() if values is not None]
        if self.model is not None and given:
            raise FieldError(
                given[0], expected=f"the limits of the {self.model}", found="others", fix="remove them, or `model`"
            )
        for name, values in own.items() if self.model is None else ():
            if values is None:
                fix = f"add `{name}`, a value per joint; or say `model: fr3`"
                raise FieldError(name, expected="the limits of an arm without `model`", found="no such key", fix=fix)
            if len(values) != self.count:
                fix = "give every joint a value"
                raise FieldError(name, expected=f"{self.count} values, as `q_min` has", found=f"{len(values)}", fix=fix)
        if self.joints and (len(self.joints) != self.count or len(set(self.joints)) != self.count):
            raise FieldError(
                "joints", expected=f"{self.count} different names", found=", ".join(self.joints), fix="name each once"
            )
        low, high = self._range()
        narrow = np.flatnonzero(high - low <= 2 * self.margin)
        if len(narrow):
            raise FieldError(
                "q_max",
                expected=f"more than `q_min` and twice the margin of {self.margin:g} rad",
                found=f"{high[narrow[0]]:g} for joint {narrow[0] + 1}, which begins at {low[narrow[0]]:g}",
                fix="correct the joint's range",
            )
        try:
            Seam(self.limits())
        except ValueError as error:
            fix = "widen the range, or raise `dddq_max`"
            raise FieldError("q_max", expected="limits that a seam can keep", found=error, fix=fix) from None

    @property
    def count(self) -> int:
        """How many joints the arm has."""
        return ARM_JOINTS if self.q_min is None else len(self.q_min)

    @property
    def ready_pose(self) -> tuple[float, ...] | None:
        """Where a known model's home is when the YAML does not say [rad]; None for an arm of your own."""
        return None if self.model is None else _READY

    def limits(self, margin: float | None = None) -> SeamLimits:
        """What the seam and the control loop keep; `margin` [rad] in place of the YAML's, below zero for a tolerance.

        Joints that the arm lacks may not leave zero.
        """
        margin = self.margin if margin is None else margin
        if self.model == "fr3":
            return SeamLimits.fr3(margin)
        if self.model == "panda":
            low, high, *rates = (np.array(values) for values in _PANDA)
        else:
            low, high = self._range()
            rates = [np.array(values) for values in (self.dq_max, self.ddq_max, self.dddq_max)]
        missing = ARM_JOINTS - self.count
        return SeamLimits(
            np.append(low + margin, np.full(missing, -PADDING_RANGE)),
            np.append(high - margin, np.full(missing, PADDING_RANGE)),
            *(np.append(rate, np.full(missing, pad)) for rate, pad in zip(rates, PADDING_RATES, strict=True)),
        )

    def proprioception(self, q: FloatArray, gripper: float) -> FloatArray:
        """`q` float64 [count] and the gripper's opening (0..1) as float64 [8]: seven joints and the gripper."""
        padded = np.zeros(PROPRIOCEPTION_DIM)
        padded[: self.count] = q
        padded[ARM_JOINTS] = gripper
        return padded

    def _range(self) -> tuple[FloatArray, FloatArray]:
        if self.model == "fr3":
            limits = SeamLimits.fr3(0.0)
            return limits.q_min, limits.q_max
        if self.model == "panda":
            return np.array(_PANDA[0]), np.array(_PANDA[1])
        return np.array(self.q_min), np.array(self.q_max)
