"""libfranka's torque loop at 1 kHz, in C++, which holds the arm to a joint reference that Python renews at 500 Hz.

libfranka's thread runs franky's joint impedance law on the newest reference, so that no Python is in the 1 kHz loop. On
the wire is the desired torque `tau_J_d`. Two things keep that safe when Python is late or dies:

- Each reference is given to two motions, one that tracks and one that holds. The first is replaced every 20 ms by a
  fresh one and would, 60 ms old, hand over to the second, which stops at the last reference. That is decided in C++.
- A reference drives a joint with no more than `effort` and brakes it with more, so that a push dies away; the torque
  changes by less than what an FR3 allows per millisecond.

Measured on simulated arms: the joint-position interface is no way to do this. Replacing franky's position motions every
10 ms commanded 160 rad/s², and the strict simulator stopped the first of them (velocity discontinuity).
"""

from __future__ import annotations

import contextlib
import math
import time

import franky
import numpy as np

from memrt.robot_io.franka.connection import one_line
from memrt.robot_io.franka.settings import TORQUE_MAX, FrankaConfig
from memrt.runtime.clock import NS_PER_MS
from memrt.runtime.types import FloatArray

RENEW_NS = 20 * NS_PER_MS
HOLD_AFTER_NS = 60 * NS_PER_MS  # at 1 rad/s the damping term has by then carried the joints some 0.04 rad on
# [N m] per ms on the wire; libfranka's kMaxTorqueRate is 1000 N m/s. In a MuJoCo model of the arm, in virtual time,
# half a second of 20 N m on the upper joints leaves no oscillation behind, 15 N m none with 2 ms of delay added either.
# With 0.5 an oscillation stays after 15 N m and 1 ms: torques that come late are what feeds it.
TORQUE_STEP = 0.8
BRAKING = 0.7  # of the drives' torque, for what slows a joint down
CYCLE_S = 0.001
FILTER_OFF_HZ = 1000.0  # libfranka's kMaxCutoffFrequency
STOP_S = 3.0  # franky's TorqueStopMotion ends after 2 s, at rest or not


class ImpedanceControl:
    """One arm's torque loop. Used by one thread; libfranka's own is inside."""

    def __init__(self, arm: franky.Robot, config: FrankaConfig) -> None:
        self._arm, self._config = arm, config
        self._stiffness, self._damping = np.array(config.stiffness), np.array(config.damping)
        self._effort = np.array(config.effort)
        self._braking = np.maximum(self._effort, BRAKING * np.array(TORQUE_MAX))
        self._track: franky.JointImpedanceTrackingMotion | None = None
        self._hold: franky.JointImpedanceTrackingMotion | None = None
        self._renew_ns = 0
        self.limited = 0  # references that asked for more than `effort`

    @property
    def held_at(self) -> FloatArray:
        """Where the arm stops without a further reference, float64 [7] [rad]."""
        assert self._hold is not None, "after `start`"
        reference = self._hold.get_reference()
        assert reference is not None, "set from the beginning"
        return np.array(reference.q)

    def start(self, q: FloatArray) -> None:
        """Begin to hold the arm at `q` float64 [7] [rad], where it was measured. libfranka's thread starts here.

        What goes wrong in that thread is told by `ended`.
        """
        self.limited = 0
        self._replace(franky.JointReference(q))

    def refer(self, q: FloatArray, dq: FloatArray, measured: franky.RobotState) -> None:
        """The reference for now: `q` [rad], `dq` [rad/s], float64 [7]; drawn towards `measured` beyond `effort`."""
        q_off, dq_off = q - measured.q, dq - measured.dq
        torque = self._stiffness * q_off + self._damping * dq_off
        bound = np.where(torque * measured.dq < 0.0, self._braking, self._effort)
        share = np.minimum(1.0, bound / np.maximum(np.abs(torque), 1e-9))
        self.limited += bool((share < 1.0).any())
        reference = franky.JointReference(measured.q + share * q_off, measured.dq + share * dq_off)
        if time.monotonic_ns() >= self._renew_ns:
            self._replace(reference)
        else:
            assert self._hold is not None, "after `start`"
            assert self._track is not None, "after `start`"
            self._hold.set_reference(franky.JointReference(reference.q))
            self._track.set_reference(reference)

    def ended(self) -> str:
        """Why libfranka's loop has ended, or "" while it runs."""
        try:
            self._arm.poll_motion()
        except Exception as error:  # franky's own kinds, and what it hands through of libfranka's and Poco's
            return one_line(error) or type(error).__name__
        return "" if self._arm.is_in_control else "libfranka's control loop has ended"

    def fade(self) -> None:
        """Begin to let the torques fade; libfranka's loop then ends, and the robot holds itself."""
        with contextlib.suppress(Exception):  # a loop that ended by itself tells why in `join`
            if self._arm.is_in_control:
                stop = franky.TorqueStopMotion(damping=self._damping, max_delta_tau=self._step_before_filter())
                self._arm.move(stop, asynchronous=True, cutoff_frequency=self._config.cutoff_hz)

    def join(self) -> str:
        """Wait for the end of libfranka's loop; "" or what went wrong."""
        try:
            return "" if self._arm.join_motion(STOP_S) else f"libfranka's control loop did not end within {STOP_S:g} s"
        except Exception as error:
            return one_line(error)

    def _replace(self, reference: franky.JointReference) -> None:
        hold, track = self._motion(), self._motion()
        hold.set_reference(franky.JointReference(reference.q))
        track.set_reference(reference)
        too_old = franky.Measure.REL_TIME > HOLD_AFTER_NS / 1e9
        track.add_reaction(franky.TorqueReaction(too_old, hold))
        self._hold, self._track = hold, track
        self._renew_ns = time.monotonic_ns() + RENEW_NS
        self._arm.move(track, asynchronous=True, cutoff_frequency=self._config.cutoff_hz)

    def _motion(self) -> franky.JointImpedanceTrackingMotion:
        return franky.JointImpedanceTrackingMotion(
            stiffness=self._stiffness, damping=self._damping, max_delta_tau=self._step_before_filter()
        )

    def _step_before_filter(self) -> float:
        """franky limits the torque's step, then libfranka filters it; the wire sees what is left [N m]."""
        if self._config.cutoff_hz >= FILTER_OFF_HZ:
            return TORQUE_STEP
        delay = 2 * math.pi * self._config.cutoff_hz * CYCLE_S
        return TORQUE_STEP * (1 + delay) / delay  # a first-order filter passes delay / (1 + delay) of a step
