"""`settings` of a robot YAML with `driver: franka`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from memrt.runtime.strict_config import FieldError, Positive

Joints = tuple[Positive, Positive, Positive, Positive, Positive, Positive, Positive]
Wrench = tuple[Positive, Positive, Positive, Positive, Positive, Positive]
Vector = tuple[float, float, float]

TORQUE_MAX = (87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0)  # FR3 datasheet [N m]


class CollisionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Beyond these external torques per joint [N m], forces [N] and torques [N m] at the hand the robot stops itself.

    The defaults are franky's. Contact below them is normal for a policy.
    """

    torque: Joints = (20.0, 20.0, 20.0, 20.0, 20.0, 20.0, 20.0)
    force: Wrench = (30.0, 30.0, 30.0, 30.0, 30.0, 30.0)


class LoadConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the flange carries besides the hand that Desk knows of.

    `centre` is its centre of mass in the flange's frame [m], `inertia` its tensor about that centre, by rows [kg m²].
    """

    mass: Annotated[float, msgspec.Meta(ge=0, le=3)]  # [kg]; FR3 datasheet: payload 3 kg
    centre: Vector = (0.0, 0.0, 0.0)
    inertia: tuple[Vector, Vector, Vector] = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))


class FrankaConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How libfranka drives the arm.

    `stiffness` [N m/rad] and `damping` [N m s/rad] are those of libfranka's own example. `effort` is the torque beyond
    gravity and Coriolis that the arm's distance from the commands may drive a joint with [N m]: what it presses with at
    most when something is in its way. `cutoff_hz` is libfranka's low-pass filter on the commanded torques, 1000 for
    none. `realtime: enforce` refuses a kernel without PREEMPT_RT. `home_hand` lets the hand find its ends when the node
    starts: the fingers close and open once.
    """

    realtime: Literal["enforce", "ignore"] = "enforce"
    stiffness: Joints = (600.0, 600.0, 600.0, 600.0, 250.0, 150.0, 50.0)  # libfranka: joint_impedance_control.cpp
    damping: Joints = (50.0, 50.0, 50.0, 50.0, 30.0, 25.0, 15.0)
    effort: Joints = (25.0, 25.0, 25.0, 25.0, 8.0, 8.0, 6.0)
    cutoff_hz: Annotated[float, msgspec.Meta(ge=10, le=1000)] = 100.0  # libfranka: kDefaultCutoffFrequency
    collision: CollisionConfig = CollisionConfig()
    load: LoadConfig | None = None
    home_hand: bool = False

    def __post_init__(self) -> None:
        for joint, (effort, limit) in enumerate(zip(self.effort, TORQUE_MAX, strict=True), start=1):
            if effort > 0.8 * limit:  # the rest is Coriolis' and what 2 ms between two references can add
                raise FieldError(
                    "effort",
                    expected=f"at most {0.8 * limit:g} N m for joint {joint}, 80 % of what its drive can do",
                    found=f"{effort:g}",
                    fix="lower it",
                )
