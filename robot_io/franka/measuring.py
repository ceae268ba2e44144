"""What the arm measures, on this computer's clock, and how well commands reach it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import franky
import numpy as np

from memrt.robot_io.cameras.device_time import DeviceClock
from memrt.robot_io.franka.settings import TORQUE_MAX
from memrt.runtime.clock import NS_PER_MS
from memrt.runtime.types import FloatArray

RATE_WINDOW_MS = 100  # libfranka: control_command_success_rate is that of the last 100 commands


@dataclass(frozen=True, slots=True)
class Measurement:
    """One state. `t_ns` is when the robot took it, `received_ns` when it first was seen here (CLOCK_MONOTONIC)."""

    t_ns: int
    received_ns: int
    q: FloatArray  # float64 [7] [rad]
    speed: float  # of the fastest joint [rad/s]
    mode: franky.RobotMode
    errors: str  # libfranka's names, or ""


class Measuring:
    """Reads states for one thread and sums up what a report says of them.

    The robot counts milliseconds since it was started. The quickest arrivals of the last ten seconds give that count's
    offset to CLOCK_MONOTONIC, so a time is late by the quickest way through the network, some tenths of a millisecond.
    """

    def __init__(self, arm: franky.Robot) -> None:
        self._arm = arm
        self._clock = DeviceClock()
        self._last_ms = -1
        self._received_ns = 0
        self._counted_ms = 0
        self._torque_max = np.array(TORQUE_MAX)
        self.lost = 0  # commands that the robot did not get in time, of the windows counted
        self.worst_rate = 1.0
        self.torque_margin = 1.0  # smallest share of any drive's torque that was left

    def read(self, *, in_control: bool) -> tuple[franky.RobotState, Measurement]:
        """The newest state. In control it is there; else it waits for the next, 1 ms, at worst libfranka's 1 s.

        Raises franky's NetworkException when none comes.
        """
        state = self._arm.state
        now_ns = time.monotonic_ns()
        count_ms = state.time.to_msec()
        if count_ms != self._last_ms:
            self._last_ms, self._received_ns = count_ms, now_ns
            if in_control:
                self._count(state, count_ms)
        t_ns = self._clock.to_monotonic(count_ms * NS_PER_MS, self._received_ns)
        errors = str(state.current_errors).strip("[]")
        speed = float(np.abs(state.dq).max())
        return state, Measurement(t_ns, self._received_ns, np.array(state.q), speed, state.robot_mode, errors)

    def begin(self) -> None:
        """A control loop starts: what is counted of it begins anew."""
        self._counted_ms = self._last_ms
        self.lost, self.worst_rate, self.torque_margin = 0, 1.0, 1.0

    def _count(self, state: franky.RobotState, count_ms: int) -> None:
        used = np.abs(state.tau_J_d) / self._torque_max
        self.torque_margin = min(self.torque_margin, 1.0 - float(used.max()))
        if count_ms - self._counted_ms >= 2 * RATE_WINDOW_MS:  # the first window of a loop begins before the loop
            rate = state.control_command_success_rate
            self._counted_ms = count_ms - RATE_WINDOW_MS
            self.lost += round((1.0 - rate) * RATE_WINDOW_MS)
            self.worst_rate = min(self.worst_rate, rate)
