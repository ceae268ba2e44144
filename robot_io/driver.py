"""What a robot has to offer to become a node."""

# ruff: noqa: D102 - the protocol's docstring speaks for its members

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, runtime_checkable

from memrt.runtime.types import FloatArray


class Driver(Protocol):
    """One robot and its task. No method waits for the robot; times are CLOCK_MONOTONIC ns.

    `push` takes joint targets, whatever space the chunk was sent in; it returns "" or why they were refused. `planned`
    is where the arm is to be at a time by what was pushed, float64 [7] in rad (`ControlLoop.planned`): chunks of
    velocities and poses go on from there. After `brake` nothing is followed until `follow`; `go_home` is called while
    braked and moves to the start posture by itself. `fault` is "" or why the robot cannot go on.
    """

    @property
    def name(self) -> str: ...

    @property
    def goal(self) -> str: ...

    @property
    def rings(self) -> Mapping[str, str]: ...

    @property
    def fault(self) -> str: ...

    @property
    def outcome(self) -> tuple[Literal["running", "success", "failure"], str]: ...

    def proprioception(self) -> tuple[int, FloatArray]: ...

    def push(self, actions: FloatArray, t0_ns: int, dt_ns: int, revision: int) -> str: ...

    def planned(self, t_ns: int) -> FloatArray: ...

    def follow(self) -> None: ...

    def brake(self) -> None: ...

    def go_home(self) -> None: ...

    def at_rest(self) -> bool: ...

    def remaining_ns(self) -> int: ...

    def report(self) -> tuple[dict[str, float], dict[str, str]]: ...


@runtime_checkable
class AdjustableSpeed(Protocol):
    """What a driver offers besides if a client may slow its robot down.

    `highest_speed` is the factor on the limits of speed that it was started with; `set_speed` takes any up to that, and
    is called only while the arm is braked and at rest.
    """

    @property
    def highest_speed(self) -> float: ...

    def set_speed(self, speed: float) -> None: ...
