"""The Franka Hand, over libfranka's gripper protocol by way of franky-control.

The hand takes one command at a time, which lasts until its fingers stand still, up to a second; the newest of those
that came meanwhile is next. It knows two: `move` goes to a width, `grasp` closes under force until the fingers meet
something. So an opening becomes a `move`, a command to close altogether a `grasp`, and a closing that was stopped on
its way by an object a `grasp`, too.
"""

from __future__ import annotations

import contextlib
import threading

import franky

from memrt.robot_io.grippers.settings import GripperConfig
from memrt.runtime.errors import MemrtError

# Franka Hand datasheet: travel of both fingers together [m], their speed towards each other, the continuous force.
WIDTH = 0.08
SPEED_MAX = 0.1  # [m/s], 50 mm/s per finger
FORCE_MAX = 70.0  # [N]
CLOSED = 0.1  # below this opening (8 mm) a policy wants to hold whatever comes
STEP = 0.05  # smaller changes of the opening (4 mm) are no new command
BLOCKED = 0.05  # this far from where a closing was to end, something lies between the fingers
POLL_S = 0.03  # the hand sends its state about 30 times a second


class FrankaHand:
    """A `Gripper`. One thread commands it and reads its state."""

    def __init__(self, robot: str, config: GripperConfig, hand: franky.Gripper, *, home: bool) -> None:
        """`home` lets the fingers find their ends first, for seconds. Raises MemrtError when they never have."""
        self._hand = hand
        self._speed, self._force = config.speed * SPEED_MAX, config.force * FORCE_MAX
        try:
            if home:
                hand.homing()
            self._width = hand.max_width
            self._opening = self._to_opening(hand.width)
        except (franky.CommandException, franky.NetworkException) as error:
            raise MemrtError(
                f"Franka Hand of robot `{robot}`",
                expected="an answer",
                found=" ".join(str(error).split()),
                fix="switch the hand off and on in Desk",
            ) from error
        if self._width < WIDTH / 2:
            raise MemrtError(
                f"Franka Hand of robot `{robot}`",
                expected="a hand that knows its ends",
                found=f"a greatest width of {self._width * 1000:.0f} mm",
                fix="home it in Desk, or set `settings: {home_hand: true}`, with nothing between the fingers",
            )
        self._lock = threading.Lock()
        self._wanted = self._done = self._opening
        self._fault = ""
        self._quit = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gripper", daemon=True)
        self._thread.start()

    @property
    def opening(self) -> float:
        """As measured, 0 closed to 1 open."""
        with self._lock:
            return self._opening

    @property
    def fault(self) -> str:
        """The first failure, or ""."""
        with self._lock:
            return self._fault

    def move(self, opening: float) -> None:
        """Begin to move to `opening`, 0 closed to 1 open; returns at once."""
        with self._lock:
            self._wanted = opening

    def close(self) -> None:
        """End the thread; the fingers stay as they are. A command under way is waited for, up to a second."""
        self._quit.set()
        self._thread.join(2.0)
        del self._hand  # libfranka disconnects when nothing refers to its objects any more

    def _run(self) -> None:
        try:
            while not self._quit.wait(POLL_S):
                self._measure()
                with self._lock:
                    wanted = self._wanted
                if abs(wanted - self._done) > STEP or (wanted != self._done and wanted in (0.0, 1.0)):
                    self._command(wanted)
        except Exception as error:  # whatever franky raises: a hand that is gone must become a fault, not a dead thread
            with self._lock:
                self._fault = f"the hand: {' '.join(str(error).split())}"

    def _command(self, wanted: float) -> None:
        closing, self._done = wanted < self._opening, wanted
        if wanted > CLOSED:
            self._finish(self._hand.move_async(wanted * self._width, self._speed))
            if not closing or self._opening < wanted + BLOCKED:
                return
        anything = self._width  # a tolerance: whatever is between the fingers counts as held
        self._finish(self._hand.grasp_async(wanted * self._width, self._speed, self._force, anything, anything))

    def _finish(self, command: franky.BoolFuture) -> None:
        """Measure on while the hand is busy. A command that failed has met something, or is told by the next one."""
        while not command.wait(POLL_S) and not self._quit.is_set():
            self._measure()
        if not self._quit.is_set():
            with contextlib.suppress(franky.CommandException):
                command.get()
            self._measure()

    def _measure(self) -> None:
        opening = self._to_opening(self._hand.width)
        with self._lock:
            self._opening = opening

    def _to_opening(self, width: float) -> float:
        return min(max(width / self._width, 0.0), 1.0)
