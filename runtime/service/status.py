"""What the service says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from memrt.runtime.service.health import HealthReport

# loading: engines are opened and proven. waiting: for the robot's node. unhealthy: cameras or the computer fall short.
# disarmed: everything is well, and nothing moves until `arm`. running, held: a run, as `memrt run` has it.
Phase = Literal["loading", "waiting", "unhealthy", "disarmed", "running", "held"]


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One glance. `reason` says what is waited for, what is wrong, or why the robot is held.

    `bundle`: the folder that is loaded, after all links. `goal`, `subgoal`: of the present run. `last_run`: outcome,
    reason and duration of the one before, and what was recorded of it. `pid`: of the service's process.
    """

    phase: Phase
    reason: str
    robot: str
    bundle: str
    goal: str = ""
    subgoal: str = ""
    health: HealthReport | None = None
    last_run: Mapping[str, Any] | None = None
    up_s: float
    pid: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return values | {"health": None if self.health is None else self.health.to_dict()}
