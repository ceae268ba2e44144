"""The Franka Research 3 as a robot node's driver: the seam's joint commands, held to by libfranka's torque loop.

libfranka's command mode is joint torque (`tau_J_d` on the wire, external controller). Threads: the seam's control loop
(C++, 1 kHz), libfranka's loop (C++, 1 kHz, in time with the robot), the forwarding between the two (Python, 500 Hz),
the hand's. The seam's limits apply to the joint reference; what the robot checks are the torques and how it moves.

libfranka's loop runs from arming until two seconds after the arm has been braked to rest. Otherwise the robot holds
itself. The loop starts where the arm was measured, and only an operator's command lets it recover from a reflex.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import franky
import numpy as np

from memrt.robot_io.config import RobotConfig
from memrt.robot_io.drivers import DriverOptions
from memrt.robot_io.franka.connection import connect_arm, connect_hand
from memrt.robot_io.franka.forwarding import REST_SPEED, Control, Forwarding
from memrt.robot_io.franka.priority import NODE, priority
from memrt.robot_io.franka.settings import FrankaConfig
from memrt.robot_io.grippers.franka_hand import FrankaHand
from memrt.robot_io.grippers.gripper import Gripper
from memrt.robot_io.grippers.robotiq import open_robotiq
from memrt.robot_io.seam_driver import SeamDriver
from memrt.runtime.clock import NS_PER_MS
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import FloatArray

SILENT_NS = 100 * NS_PER_MS  # in control; the robot sends a state every millisecond


@contextmanager
def open_driver(robot: RobotConfig, options: DriverOptions) -> Iterator[FrankaDriver]:
    """The FR3 at `options.host`. Raises MemrtError when it cannot be reached or does not fit the YAML."""
    config = robot.driver_settings(FrankaConfig)
    host = options.host
    if host is None:
        raise MemrtError(
            f"robot `{robot.name}`", expected="its address", found="none", fix="add --host, or `host:` to the YAML"
        )
    arm = connect_arm(host, config)
    with priority(NODE):
        driver = FrankaDriver(robot, options, arm, config, _open_hand(robot, host, config))
        try:
            yield driver
        finally:
            driver.close()


def _open_hand(robot: RobotConfig, host: str, config: FrankaConfig) -> Gripper | None:
    if robot.gripper is None:
        return None
    if robot.gripper.kind == "robotiq":
        return open_robotiq(robot.name, robot.gripper)
    return FrankaHand(robot.name, robot.gripper, connect_hand(host), home=config.home_hand)


class FrankaDriver(SeamDriver):
    """A `Driver`. Its faults, but for a lost connection, are over once the node knows of them and has braked."""

    def __init__(
        self, robot: RobotConfig, options: DriverOptions, arm: franky.Robot, config: FrankaConfig, hand: Gripper | None
    ) -> None:
        self._hand = hand
        super().__init__(robot, options, np.append(np.array(arm.state.q), hand.opening if hand else 1.0))
        self._told = ""  # the fault that the node has read
        self._lost = False  # only a new node helps
        self._forwarding = Forwarding(arm, config, self.control, self._limits, hand, self._on_failure)
        self._forwarding.start()

    @property
    def fault(self) -> str:
        """Why the robot cannot go on, or ""."""
        self._told = self._fault
        return self._fault

    def proprioception(self) -> tuple[int, FloatArray]:
        """When the robot measured it [ns], and its joints [rad] and the hand's opening (0..1), float64 [8]."""
        measured, hand = self._forwarding.measured, self._hand
        values = np.append(measured.q, hand.opening if hand else 1.0)
        self.check_range(values)
        if self._silent_ns() > SILENT_NS and self._forwarding.holder is not Control.ROBOT:
            self._on_failure(f"the robot has sent no state for {SILENT_NS // NS_PER_MS} ms", lost=False)
        if hand is not None and hand.fault:
            self._on_failure(hand.fault, lost=True)
        return measured.t_ns, values

    def push(self, actions: FloatArray, t0_ns: int, dt_ns: int, revision: int) -> str:
        """Hand a chunk to the seam; "" or why it is refused."""
        with self._forwarding.lock:
            if self._forwarding.holder is not Control.LIBFRANKA:
                return "libfranka's loop has not started yet"
            return super().push(actions, t0_ns, dt_ns, revision)

    def follow(self) -> None:
        """Accept chunks, once libfranka's loop runs."""
        self._forwarding.when_in_control(super().follow)

    def go_home(self) -> None:
        """Move to the home pose, once libfranka's loop runs."""
        self._forwarding.when_in_control(super().go_home)

    def brake(self) -> None:
        """Decelerate inside the limits and hold."""
        with self._forwarding.lock:
            self._forwarding.cancel()
            super().brake()
            if self._told and not self._lost:
                self._fault = self._told = ""

    def at_rest(self) -> bool:
        """Whether the commands have come to rest, none are to come, and every joint was measured to stand still."""
        still = self._forwarding.measured.speed < REST_SPEED and self._silent_ns() < SILENT_NS
        return still and not self._forwarding.pending and super().at_rest()

    def report(self) -> tuple[dict[str, float], dict[str, str]]:
        """What the seam counts, and how libfranka's loop and the forwarding have gone since the loop was started."""
        values, texts = super().report()
        forwarding = self._forwarding
        late_ms = np.array(list(forwarding.lateness_ns) or [0]) / NS_PER_MS
        values |= {
            "commands that reached the robot in time, worst 0.1 s": forwarding.measuring.worst_rate,
            "commands that did not reach the robot in time": float(forwarding.measuring.lost),
            "smallest torque margin": forwarding.measuring.torque_margin,
            "references limited in effort": float(forwarding.impedance.limited),
            "forwarding lateness p99 [ms]": float(np.percentile(late_ms, 99)),
            "forwarding lateness max [ms]": float(late_ms.max()),
            "forwarding held up": float(forwarding.held_up),
            "reflexes": float(forwarding.reflexes),
            "recoveries on arming": float(forwarding.recoveries),
        }
        return values, texts | {"robot mode": forwarding.measured.mode.name, "arm held by": forwarding.holder.value}

    def close(self) -> None:
        """Hand the arm back to the robot and end the threads."""
        self._forwarding.close()
        del self._forwarding  # libfranka disconnects when nothing refers to its objects any more
        if self._hand is not None:
            self._hand.close()
        super().close()

    def _on_failure(self, why: str, lost: bool) -> None:
        self._lost = self._lost or lost
        self.fail(why)

    def _silent_ns(self) -> int:
        return time.monotonic_ns() - self._forwarding.measured.received_ns
