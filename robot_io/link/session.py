"""The node's decisions: who may command the robot, in which mode it is, and when silence stops it. Pure.

Modes: DISARMED --arm--> RUNNING --stop--> STOPPED --resume--> RUNNING; FAULT from anywhere, left only by the hello of a
new session (into DISARMED), and never while the driver itself reports a fault. Silence is measured between receipts on
the node's own clock, so no error of clock synchronisation can delay it. It ends a session that was RUNNING, and brakes
an arm on its way home; a robot that stands still waits for its client, until another one says hello.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum

from memrt.robot_io.link.wire import VERSION, Command, Hello
from memrt.runtime.clock import NS_PER_MS
from memrt.runtime.types import RobotMode

SESSIONS_REMEMBERED = 1024  # used session ids, newest; ids are 63 random bits, so older ones do not come back

NO_SESSION = "no such session; say hello first"


@dataclass(frozen=True, slots=True)
class Watchdog:
    """How long the client may be silent (FACTS, fault table)."""

    brake_after_ns: int = 50 * NS_PER_MS
    fault_after_ns: int = 200 * NS_PER_MS

    def __post_init__(self) -> None:
        if not 0 < self.brake_after_ns < self.fault_after_ns:
            raise ValueError(
                f"the brake ({self.brake_after_ns} ns) must come before the fault ({self.fault_after_ns} ns)"
            )


class Reaction(Enum):
    """What the driver must do now."""

    NOTHING = "nothing"
    BRAKE = "brake"  # decelerate inside the limits, drop the future
    FOLLOW = "follow"  # accept chunks
    GO_HOME = "go home"


class NodeSession:
    """One robot's mode and its one client. The caller executes every `Reaction` it is given."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog
        self._used: deque[int] = deque(maxlen=SESSIONS_REMEMBERED)
        self._heard_ns = 0
        self._stops = 0
        self._ended = False  # by silence while RUNNING
        self._going_home = False  # the one motion that is not RUNNING
        self.session: int | None = None
        self.mode = RobotMode.DISARMED
        self.fault = ""
        self.braked_for_silence = False
        self.silences = 0

    def hello(self, hello: Hello, now_ns: int, driver_fault: str) -> str:
        """Begin a session; "" or why not. A client that is still alive is never pushed out."""
        if hello.version != VERSION:
            return refuse_version(hello.version)
        if not hello.session:
            return "session 0 is nobody's; draw another number"
        if hello.session == self.session and not self._ended:
            return ""  # its first answer was lost
        if hello.session in self._used:
            return "this session has ended; begin a new one"
        if self.session is not None and not self._ended and not self._silent(now_ns):
            return "another client commands this robot"
        self._used.append(hello.session)
        self.session = hello.session
        self._heard_ns = now_ns
        self._stops, self._ended, self._going_home = 0, False, False
        self.braked_for_silence = False
        self.mode, self.fault = (RobotMode.FAULT, driver_fault) if driver_fault else (RobotMode.DISARMED, "")
        return ""

    def heard(self, session: int, now_ns: int) -> Reaction:
        """A message of the client came in; one of another session changes nothing."""
        if session != self.session or self._ended or (self.mode is RobotMode.RUNNING and self._silent(now_ns)):
            return Reaction.NOTHING  # too late for a robot that was running: `check` is about to end the session
        self._heard_ns = now_ns
        if self.braked_for_silence and self.mode is RobotMode.RUNNING:
            self.braked_for_silence = False
            return Reaction.FOLLOW
        return Reaction.NOTHING

    def check(self, now_ns: int, driver_fault: str) -> Reaction:
        """The watchdog: to be called every few milliseconds."""
        if driver_fault and self.mode is not RobotMode.FAULT:
            return self._enter_fault(driver_fault)
        silence_ns = now_ns - self._heard_ns
        if self.mode is not RobotMode.RUNNING:
            return self._brake_on_the_way_home(silence_ns)
        if self._silent(now_ns):
            self._ended = True
            return self._enter_fault(f"the link was silent for {silence_ns / NS_PER_MS:.0f} ms")
        if silence_ns > self._watchdog.brake_after_ns and not self.braked_for_silence:
            self.braked_for_silence = True
            self.silences += 1
            return Reaction.BRAKE
        return Reaction.NOTHING

    def command(self, command: Command, now_ns: int, *, at_rest: bool) -> tuple[str, Reaction]:
        """("" or why it is refused, what the driver must do). Only the present session's commands count.

        Its stop counts even when it has ended.
        """
        if command.session != self.session:
            return NO_SESSION, Reaction.NOTHING
        if command.kind == "stop":
            self._stops, self._going_home = max(self._stops, command.stops), False
            if self.mode is RobotMode.RUNNING:
                self.mode = RobotMode.STOPPED
            return "", Reaction.BRAKE
        if self._ended or (self.mode is RobotMode.RUNNING and self._silent(now_ns)):
            return f"the session has ended: {self.fault or 'the link was silent'}", Reaction.NOTHING
        refusal = self._refusal(command, at_rest)
        if refusal or self.mode is RobotMode.RUNNING:
            return refusal, Reaction.NOTHING
        self._going_home = command.kind == "home"
        if self._going_home:
            return "", Reaction.GO_HOME
        self.mode = RobotMode.RUNNING
        self.braked_for_silence = False
        return "", Reaction.FOLLOW

    def refuse_configuration(self, *, at_rest: bool) -> str:
        """Why the present session may not change the robot's limits now, or ""."""
        if self._ended or self.mode is RobotMode.FAULT:
            return f"the robot is in fault: {self.fault}"
        if self.mode is RobotMode.RUNNING:
            return "stop the robot first"
        return "" if at_rest else "the robot still moves"

    def _brake_on_the_way_home(self, silence_ns: int) -> Reaction:
        """An arm that was sent home and lost its client stops where it is, and waits."""
        if not self._going_home or silence_ns <= self._watchdog.brake_after_ns:
            return Reaction.NOTHING
        self._going_home = False
        self.silences += 1
        return Reaction.BRAKE

    def _refusal(self, command: Command, at_rest: bool) -> str:
        """Why a command that sets the robot in motion must not be carried out, or ""."""
        if self.mode is RobotMode.FAULT:
            return f"the robot is in fault: {self.fault}"
        if command.stops < self._stops:
            return "a stop came in after this command was given"
        if command.kind == "home":
            return "stop the robot first" if self.mode is RobotMode.RUNNING else ""
        leaves = RobotMode.DISARMED if command.kind == "arm" else RobotMode.STOPPED
        if self.mode not in (leaves, RobotMode.RUNNING):
            return f"the robot is {self.mode.value}, which `{command.kind}` does not leave"
        if self.mode is leaves and not at_rest:
            return "the robot still moves"
        return ""

    def accepts_chunks(self, session: int) -> bool:
        """Whether a chunk of this session may reach the driver now."""
        return session == self.session and self.mode is RobotMode.RUNNING and not self.braked_for_silence

    def _silent(self, now_ns: int) -> bool:
        """Whether the client has been silent for longer than a running robot, or another client, waits."""
        return now_ns - self._heard_ns > self._watchdog.fault_after_ns

    def _enter_fault(self, reason: str) -> Reaction:
        self.mode, self.fault = RobotMode.FAULT, reason
        return Reaction.BRAKE


def refuse_version(version: int) -> str:
    """What a client of another version of the link is told."""
    return f"the node speaks version {VERSION} of the link, the client version {version}"
