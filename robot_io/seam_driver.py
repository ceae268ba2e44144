"""What drivers share whose robot takes one joint command at a time: chunks, stops and the way home use the seam."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import numpy as np

from memrt.robot_io.drivers import DriverOptions
from memrt.robot_io.homing import way_home
from memrt.runtime._core import ControlLoop
from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.types import ARM_JOINTS, FloatArray

if TYPE_CHECKING:
    from typing_extensions import Self

    from memrt.robot_io.config import RobotConfig

CONTROL_HZ = 1000.0
HOME_STARTS_NS = 50 * NS_PER_MS  # from the call to the first action
HOME_SETTLES_NS = 200 * NS_PER_MS  # after the last action; the seam ends at rest 60 ms after it
JOIN_S = 5.0


class SeamDriver(ABC):
    """A `Driver` but for `proprioception`: commands come from a `ControlLoop` within the limits of the robot's YAML.

    A subclass reads `control.command()` as often as its robot wants a command, in a thread that it starts with `spawn`
    and that ends when `quit` is set. It hands every measurement to `check_range`, and says to `fail` what goes wrong.
    The context manager closes it.
    """

    def __init__(
        self, robot: RobotConfig, options: DriverOptions, measured: FloatArray, *, rate_hz: float = CONTROL_HZ
    ) -> None:
        """`measured` float64 [8] is where the arm stands now, at rest [rad], and its gripper's opening."""
        self.robot, self.options = robot, options
        limits = robot.arm.limits()
        self._limits = limits
        self._home = robot.arm.proprioception(np.array(robot.home_pose), 1.0)[:ARM_JOINTS]
        self._range = robot.arm.limits(-robot.arm.tolerance)
        self._speed = options.speed
        self._fault = ""
        self._home_until_ns = 0
        self._threads: list[threading.Thread] = []
        self.quit = threading.Event()
        self.control = ControlLoop(limits, rate_hz, speed=options.speed)
        self.control.start(measured[:ARM_JOINTS], float(measured[ARM_JOINTS]))
        self.control.stop()  # nothing is followed before a client arms

    @property
    def name(self) -> str:
        """The robot's name."""
        return self.robot.name

    @property
    def goal(self) -> str:
        """A robot in a laboratory has no task of its own."""
        return ""

    @property
    def rings(self) -> Mapping[str, str]:
        """The shared-memory ring of each camera."""
        return self.options.rings

    @property
    def fault(self) -> str:
        """The first failure, or ""."""
        return self._fault

    @property
    def outcome(self) -> tuple[Literal["running", "success", "failure"], str]:
        """A robot in a laboratory cannot tell how its task stands; its operator can."""
        return "running", ""

    @abstractmethod
    def proprioception(self) -> tuple[int, FloatArray]:
        """When it was measured [ns], and measured joints [rad] and gripper opening (0..1), float64 [8]."""

    @property
    def highest_speed(self) -> float:
        """The factor on the limits of speed that the driver was started with."""
        return self.options.speed

    def set_speed(self, speed: float) -> None:
        """Another factor on the limits of speed, for an arm that is braked and at rest."""
        self.control.set_speed(speed)
        self._speed = speed

    def push(self, actions: FloatArray, t0_ns: int, dt_ns: int, revision: int) -> str:
        """Hand a chunk to the control loop; "" or why it refuses."""
        return self.control.push(actions, t0_ns, dt_ns, revision)

    def planned(self, t_ns: int) -> FloatArray:
        """Where the arm is to be at `t_ns` by what was pushed, float64 [7]."""
        return self.control.planned(t_ns)

    def follow(self) -> None:
        """Accept chunks."""
        self.control.resume()

    def brake(self) -> None:
        """Decelerate inside the limits and hold."""
        self._home_until_ns = 0
        if not self.control.stop():
            self.fail("the control loop does not answer")

    def go_home(self) -> None:
        """Move to the home pose with the gripper open, slowly and by the same seam as every chunk."""
        q, _, gripper, _ = self.control.command()
        actions, dt_ns = way_home(np.append(q, gripper), self._home, self._limits, self._speed)
        now_ns = time.monotonic_ns()
        self.control.resume()
        refusal = self.control.push(actions, now_ns + HOME_STARTS_NS, dt_ns, 0)
        self._home_until_ns = 0 if refusal else now_ns + HOME_STARTS_NS + len(actions) * dt_ns + HOME_SETTLES_NS

    def at_rest(self) -> bool:
        """Whether the commands have come to rest and none are left."""
        return self.control.at_rest and time.monotonic_ns() >= self._home_until_ns

    def remaining_ns(self) -> int:
        """How much of the accepted future is left."""
        return max(0, round(self.control.stats()["remaining_s"] * NS_PER_S))

    def report(self) -> tuple[dict[str, float], dict[str, str]]:
        """Control lateness and counts."""
        stats = self.control.stats()
        late = stats["late_ns"]
        values = {
            "control ticks": stats["ticks"],
            "control ticks missed": stats["missed_ticks"],
            "control ticks starved": stats["starved_ticks"],
            "control lateness p50 [ms]": late["median"] / NS_PER_MS,
            "control lateness p90 [ms]": late["p90"] / NS_PER_MS,
            "control lateness p99 [ms]": late["p99"] / NS_PER_MS,
            "control lateness p99.9 [ms]": late["p999"] / NS_PER_MS,
            "control lateness max [ms]": late["max"] / NS_PER_MS,
            "chunks refused by the control loop": stats["rejected"],
            "joint targets clamped": stats["clamped"],
            "actions late": stats["late_actions"],
        }
        return {name: float(value) for name, value in values.items()}, {}

    def fail(self, why: str) -> None:
        """Put the robot in fault; the first reason stays."""
        self._fault = self._fault or why

    def check_range(self, measured: FloatArray) -> None:
        """Fault when a measured joint lies outside its range, or is no number. `measured` float64 [8]."""
        q = measured[:ARM_JOINTS]
        outside = np.flatnonzero(~((q >= self._range.q_min) & (q <= self._range.q_max)))
        if len(outside):
            joint = int(outside[0])
            name = self.robot.arm.joints[joint] if self.robot.arm.joints else joint + 1
            self.fail(f"joint {name} was measured at {q[joint]:.3f} rad, outside its range")

    def spawn(self, name: str, work: Callable[[], None]) -> None:
        """Run `work` in a thread; what it raises is the robot's fault."""

        def guarded() -> None:
            try:
                work()
            except Exception as error:
                self.fail(f"{name}: {error}")

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """End the threads, then the control loop."""
        self.quit.set()
        for thread in self._threads:
            thread.join(JOIN_S)
        self.control.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
