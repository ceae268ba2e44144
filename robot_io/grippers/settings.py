"""A gripper's settings, as the robot's YAML states them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from memrt.runtime.strict_config import FieldError

Fraction = Annotated[float, msgspec.Meta(gt=0, le=1)]


class GripperConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`franka_hand` is reached through the arm; `robotiq` (2F-85, 2F-140) takes the `path` of its serial adapter.

    `speed` and `force` are fractions of what the gripper can do.
    """

    kind: Literal["franka_hand", "robotiq"]
    path: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    speed: Fraction = 1.0
    force: Fraction = 0.5

    def __post_init__(self) -> None:
        if (self.kind == "robotiq") != (self.path is not None):
            raise FieldError(
                "path",
                expected="the serial adapter of a robotiq gripper, and of no other kind",
                found=f"`{self.path}`" if self.path else "no such key",
                fix="remove it" if self.path else "add `path: /dev/serial/by-id/...`",
            )
