"""Carries the seam's commands to libfranka's loop 500 times a second, and decides when that loop starts and ends."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from enum import Enum

import franky
import numpy as np

from memrt.robot_io.franka.connection import one_line
from memrt.robot_io.franka.impedance import HOLD_AFTER_NS, ImpedanceControl
from memrt.robot_io.franka.measuring import Measuring
from memrt.robot_io.franka.priority import FORWARDING, LIBFRANKA, priority, set_priority
from memrt.robot_io.franka.settings import FrankaConfig
from memrt.robot_io.grippers.gripper import Gripper
from memrt.runtime._core import ControlLoop, SeamLimits
from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.types import FloatArray

PERIOD_NS, IDLE_PERIOD_NS = 2 * NS_PER_MS, 10 * NS_PER_MS  # of one round, while libfranka's loop runs and while not
HAND_EVERY = 10  # rounds between two commands to the hand
GIVE_UP_NS = 200 * NS_PER_MS  # held up for longer is a fault, as a link is that was silent for so long
RELEASE_AFTER_NS = 2 * NS_PER_S  # a braked arm at rest is handed back to the robot
REST_SPEED = 0.02  # [rad/s]; below it franky's TorqueStopMotion takes an arm to stand still
RECOVERY_NS = 3 * NS_PER_S
LATENESS_KEPT = 5000  # rounds: ten seconds
WHY_NOT = {
    franky.RobotMode.UserStopped: "its user stop is pressed; release it",
    franky.RobotMode.Guiding: "it is guided by hand; let go of the buttons",
    franky.RobotMode.Move: "another program moves it; end that",
    franky.RobotMode.Reflex: "it did not recover from its reflex; acknowledge the error in Desk",
    franky.RobotMode.AutomaticErrorRecovery: "it still recovers from an error; wait",
    franky.RobotMode.Other: "it is not ready; unlock the joints and activate FCI in Desk",
}


class Control(Enum):
    """Who holds the arm."""

    ROBOT = "the robot itself"
    LIBFRANKA = "libfranka's loop"
    FADING = "libfranka's loop, which is about to end"


class Forwarding:
    """One thread. `lock` guards what the node's thread and this one decide together; the robot is not waited for in it.

    `fail(why, lost)` is told what ended the forwarding; `lost` when this connection cannot go on.
    """

    def __init__(
        self,
        arm: franky.Robot,
        config: FrankaConfig,
        control: ControlLoop,
        limits: SeamLimits,
        hand: Gripper | None,
        fail: Callable[[str, bool], None],
    ) -> None:
        self.lock = threading.RLock()
        self.holder = Control.ROBOT
        self.measuring, self.impedance = Measuring(arm), ImpedanceControl(arm, config)
        _, self.measured = self.measuring.read(in_control=False)
        self.reflexes = self.recoveries = self.held_up = 0
        self.lateness_ns: deque[int] = deque(maxlen=LATENESS_KEPT)
        self.recovering = False
        self._arm, self._control, self._limits, self._hand, self._fail = arm, control, limits, hand, fail
        self._pending: Callable[[], None] | None = None
        self._asked = hand.opening if hand else 1.0  # of the hand, last
        self._rounds = 0
        self._moved_ns = 0
        self._wake, self._quit = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._guard, name="forwarding", daemon=True)

    def start(self) -> None:
        """Begin to measure; the arm stays the robot's."""
        self._thread.start()

    @property
    def pending(self) -> bool:
        """Whether something waits for libfranka's loop to start."""
        return self._pending is not None

    def when_in_control(self, act: Callable[[], None]) -> None:
        """Call `act`, under the lock, once libfranka's loop runs; it is started when it does not."""
        with self.lock:
            if self.holder is Control.LIBFRANKA:
                self._moved_ns = time.monotonic_ns()
                act()
            else:
                self._pending = act
                self._wake.set()

    def cancel(self) -> None:
        """Forget what waits."""
        self._pending = None

    def close(self) -> None:
        """Hand the arm back to the robot and end the thread."""
        self._quit.set()
        self._wake.set()
        self._thread.join()

    def _guard(self) -> None:
        set_priority(FORWARDING)
        try:
            self._run()
        except Exception as error:  # of whatever kind: a forwarding that ends must become a fault
            self._fail(f"connection to the robot: {one_line(error)}; start the node again", True)
        finally:
            if self.holder is not Control.ROBOT:
                self.impedance.fade()
                self.impedance.join()

    def _run(self) -> None:
        last_ns = time.monotonic_ns()
        while not self._quit.is_set():
            held = self.holder is not Control.ROBOT
            state, self.measured = self.measuring.read(in_control=held)
            now_ns = time.monotonic_ns()
            if self.holder is Control.LIBFRANKA:
                self._forward(state, now_ns, now_ns - last_ns)
            elif self.holder is Control.FADING:
                self._await_end()
            elif self._pending is not None:
                self._take_over()
                now_ns = time.monotonic_ns()
            last_ns = now_ns
            period_ns = IDLE_PERIOD_NS if self.holder is Control.ROBOT else PERIOD_NS
            rest_s = max(0, now_ns + period_ns - time.monotonic_ns()) / NS_PER_S
            if self.holder is Control.ROBOT:
                self._wake.wait(rest_s)
                self._wake.clear()
            else:
                time.sleep(rest_s)

    def _take_over(self) -> None:
        """Start libfranka's loop where the arm was measured, if the robot is ready; a fault if not."""
        if self.measured.mode == franky.RobotMode.Reflex:
            self._recover()
        measured = self.measured
        q, limits = measured.q, self._limits
        outside = np.flatnonzero((q < limits.q_min) | (q > limits.q_max))
        if measured.mode != franky.RobotMode.Idle:
            self._refuse(f"the robot cannot be armed: {WHY_NOT[measured.mode]}")
        elif len(outside):
            joint = int(outside[0])
            low, high = limits.q_min[joint], limits.q_max[joint]
            where = f"joint {joint + 1} is at {q[joint]:.3f} rad, commands stay within {low:.3f} and {high:.3f}"
            self._refuse(f"the robot cannot be armed: {where}; guide it there by hand")
        else:
            self._restart_seam(q, stopped=True)
            self.measuring.begin()
            self.lateness_ns.clear()
            try:
                with priority(LIBFRANKA):  # the thread that is started has it, too
                    self.impedance.start(q)
            except Exception as error:
                self._refuse(f"the robot cannot be armed: {one_line(error)}")
                return
            with self.lock:
                self.holder, self._moved_ns = Control.LIBFRANKA, time.monotonic_ns()
                act, self._pending = self._pending, None
                if act is not None:
                    act()

    def _recover(self) -> None:
        """libfranka's automatic error recovery: only ever on an `arm`, `resume` or `home` of the operator."""
        self.recoveries += 1
        self.recovering = True
        try:
            self._arm.recover_from_errors()
            give_up_ns = time.monotonic_ns() + RECOVERY_NS
            while self.measured.mode != franky.RobotMode.Idle and time.monotonic_ns() < give_up_ns:
                _, self.measured = self.measuring.read(in_control=False)
        except franky.CommandException as error:
            self._refuse(f"the robot cannot be armed: {one_line(error)}")
        finally:
            self.recovering = False

    def _restart_seam(self, q: FloatArray, *, stopped: bool) -> None:
        """The seam begins anew, at rest at `q`."""
        with self.lock:
            self._control.shutdown()
            self._control.start(q, self._asked)
            if stopped:
                self._control.stop()

    def _forward(self, state: franky.RobotState, now_ns: int, since_last_ns: int) -> None:
        self.lateness_ns.append(since_last_ns - PERIOD_NS)
        ended = self.impedance.ended()
        if ended:
            self._lose(ended)
            return
        if since_last_ns > HOLD_AFTER_NS:
            self._rejoin(since_last_ns)
        q, dq, opening, t_ns = self._control.command()
        ahead_s = (now_ns + PERIOD_NS // 2 - t_ns) / NS_PER_S  # the middle of the time that this reference is in force
        try:
            self.impedance.refer(q + dq * ahead_s, dq, state)
        except Exception as error:  # franky hands on what ended the loop a moment ago
            self._lose(one_line(error))
            return
        self._rounds += 1
        if self._hand is not None and self._rounds % HAND_EVERY == 0 and opening != self._asked:
            self._asked = opening
            self._hand.move(opening)
        self._release_when_at_rest(now_ns)

    def _rejoin(self, held_up_ns: int) -> None:
        """libfranka's loop has stopped the arm meanwhile: the seam goes on from there, at rest."""
        self.held_up += 1
        give_up = held_up_ns > GIVE_UP_NS
        with self.lock:
            self._restart_seam(self.impedance.held_at, stopped=give_up or self._control.stopped)
        if give_up:
            self._fail(f"the forwarding of commands was held up for {held_up_ns // NS_PER_MS} ms", False)

    def _release_when_at_rest(self, now_ns: int) -> None:
        with self.lock:
            if not (self._control.stopped and self._control.at_rest and self.measured.speed < REST_SPEED):
                self._moved_ns = now_ns
            elif now_ns - self._moved_ns > RELEASE_AFTER_NS:
                self.holder = Control.FADING
                self.impedance.fade()

    def _await_end(self) -> None:
        if self._arm.is_in_control:
            return
        self.holder = Control.ROBOT
        why = self.impedance.join()
        if why:
            self._lose(why)

    def _lose(self, why: str) -> None:
        """libfranka's loop has ended by itself; the robot brakes and holds itself."""
        with self.lock:
            self.holder, self._pending = Control.ROBOT, None
            self._control.stop()
        self.reflexes += "reflex" in why
        self._fail(f"the robot stopped: {why}", False)

    def _refuse(self, why: str) -> None:
        with self.lock:
            self._pending = None
        self._fail(why, False)
