"""The few nouns of memrt: frozen values that cross the boundaries between threads, engines and robots.

Every time is a CLOCK_MONOTONIC nanosecond count. An observation carries the time it was taken, an action the
time it is meant for; latency is measured from those two, never assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
ImageArray = NDArray[np.uint8]

ARM_JOINTS = 7
PROPRIOCEPTION_DIM = ARM_JOINTS + 1  # seven joint angles [rad], then the gripper opening (0 closed, 1 open)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One image of one camera: `image` is uint8 [height, width, 3], RGB; `index` counts the camera's frames."""

    camera: str
    index: int
    t_ns: int
    image: ImageArray


class BorrowedFrame(Protocol):
    """A frame looked at where it lies: `image` uint8 [height, width, 3] must not be used after `release`."""

    @property
    def image(self) -> ImageArray:
        """The pixels, RGB; a view."""
        ...

    @property
    def index(self) -> int:
        """The camera's count of the frame."""
        ...

    @property
    def t_ns(self) -> int:
        """When it was taken."""
        ...

    def release(self) -> None:
        """Let the pixels go; a second call does nothing."""
        ...


class FrameHistory(Protocol):
    """The recent past of a robot's cameras: bounded, so the oldest frames are gone."""

    def at(self, camera: str, t_ns: int) -> BorrowedFrame | None:
        """What `camera` showed at `t_ns`: its newest frame not younger than that. None when it is gone, or none was."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """What the robot knew at `t_ns`: the newest frame of every camera, and proprioception float64 [8].

    `history` leads to the frames before them, for policies that look at frames over time; None where none are kept.
    """

    t_ns: int
    proprioception: FloatArray
    frames: Mapping[str, Frame] = field(default_factory=dict)
    history: FrameHistory | None = None


@dataclass(frozen=True, slots=True)
class Subgoal:
    """The instruction the action expert follows. `revision` grows by one with each different text."""

    text: str
    revision: int
    t_obs_ns: int


class ActionSpace(IntEnum):
    """What the numbers of a chunk mean. The value is the byte on the wire: a number once given is never given again."""

    JOINT_POSITION = 0
    JOINT_VELOCITY = 1
    CARTESIAN_POSE = 2


@dataclass(frozen=True, slots=True, eq=False)
class ActionChunk:
    """`actions` float64 [horizon, 8] in the units of `space`; the eighth is always the gripper opening (0..1).

    Joint positions: seven absolute targets [rad]. Joint velocities: seven [rad/s]. Cartesian poses: position [m] and
    unit quaternion (w, x, y, z) of the tool centre point in the frame of the arm's base.

    Action i is meant for `t0_ns + i * dt_ns`. A chunk computed from an observation at t has `t0_ns = t + dt_ns`.
    """

    actions: FloatArray
    t0_ns: int
    dt_ns: int
    subgoal_revision: int
    space: ActionSpace = ActionSpace.JOINT_POSITION

    @property
    def end_ns(self) -> int:
        """The time of the last action."""
        return self.t0_ns + (len(self.actions) - 1) * self.dt_ns


@dataclass(frozen=True, slots=True, eq=False)
class PlayingChunk:
    """What the robot follows while the next chunk is computed, and what of the next one will be past on arrival.

    `actions` float64 [n, 8], absolute as in `ActionChunk`, are meant for `times_ns` int64 [n], ascending; one chunk
    took over from another somewhere, so the times need not be evenly spaced. `dt_ns` is the time between two actions of
    the next chunk on the robot, `delay_steps` how many of them will be past when it arrives (d of SPECS 3).
    """

    times_ns: NDArray[np.int64]
    actions: FloatArray
    dt_ns: int
    delay_steps: int


class RobotMode(Enum):
    """What a robot node does with chunks: it follows them only while RUNNING."""

    DISARMED = "disarmed"
    RUNNING = "running"
    STOPPED = "stopped"
    FAULT = "fault"


class Robot(Protocol):
    """A robot as the loop sees it. Implementations live in `robot_io` and `sim`; the loop knows no driver."""

    @property
    def mode(self) -> RobotMode:
        """What the robot does with chunks now."""
        ...

    def observe(self) -> Observation:
        """The newest observation; never waits for a camera."""
        ...

    def send(self, chunk: ActionChunk) -> None:
        """Hand over a timed chunk; from `chunk.t0_ns` on it replaces whatever was sent before."""
        ...

    def arm(self) -> None:
        """Begin to follow chunks."""
        ...

    def stop(self) -> None:
        """Decelerate inside the limits and hold. Returns once the robot has acknowledged."""
        ...

    def resume(self) -> None:
        """Follow chunks again after a stop; never implied by anything else."""
        ...

    def home(self) -> None:
        """Move to the start posture."""
        ...

    def close(self) -> None:
        """Give back whatever is held."""
        ...


class SteppedRobot(Robot, Protocol):
    """A robot whose time stands still between calls: the simulator in lock-step."""

    def advance(self, steps: int) -> None:
        """Let `steps` control steps pass."""
        ...


class Camera(Protocol):
    """A source of frames with a name."""

    @property
    def name(self) -> str:
        """The name that policies know the camera by."""
        ...

    def latest(self) -> Frame | None:
        """The newest frame, or None before the first."""
        ...

    def close(self) -> None:
        """Give back whatever is held."""
        ...


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, dtype (numpy name) and shape of one engine input or output; -1 marks a dynamic dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Engine(Protocol):
    """A compiled graph. `run` takes and returns arrays by name; it is not re-entrant."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` takes."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` gives."""
        ...

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Execute once; wrong names, dtypes or shapes raise MemrtError."""
        ...

    def close(self) -> None:
        """Give back whatever is held."""
        ...
