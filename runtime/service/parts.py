"""What the service is made of: policies, a robot, a recording. The command brings the real ones, tests bring others."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from memrt.runtime.loop.observer import LoopObserver
from memrt.runtime.loop.protocols import HighLevel, LowLevel, TaskRobot
from memrt.runtime.loop.record import RunRecord
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.service.health import Check


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A policy that is ready, and what its loading has proven. `goal` is what to do when arming says nothing else."""

    high_level: HighLevel | None
    low_level: LowLevel
    settings: LoopSettings
    goal: str
    bundle: str
    policy: str
    device: str
    proofs: tuple[Check, ...]


class NotReadyError(Exception):
    """This computer cannot run the bundle now, whatever the bundle: no GPU, a new driver, engines not built for it."""


class Recording(Protocol):
    """What is recorded of one run."""

    @property
    def observer(self) -> LoopObserver | None:
        """Who is told; None when nothing is recorded."""
        ...

    def look(self, say: Callable[[str], None]) -> None:
        """Say it if the recording has ended early. To be called every now and then."""
        ...

    def finish(self, record: RunRecord) -> dict[str, Any] | None:
        """End the file; what became of it."""
        ...


class Parts(Protocol):
    """What the service is made of. Everything that is opened is closed by whoever made the parts."""

    @property
    def robot_name(self) -> str:
        """For people."""
        ...

    @property
    def bundle_path(self) -> str:
        """The folder that is loaded, after all links."""
        ...

    def load(self) -> Loaded:
        """Open the policies and prove them. Raises MemrtError for a bundle that must not run, NotReadyError."""
        ...

    def connect(self) -> AbstractContextManager[TaskRobot]:
        """A new session with the robot, which is disarmed. Raises MemrtError while it is not there."""
        ...

    def goal_of(self, robot: TaskRobot) -> str:
        """What the robot itself says is to be done, "" where it knows nothing."""
        ...

    def record(self, goal: str) -> Recording:
        """Begin to record a run; one that cannot be recorded goes on without."""
        ...
