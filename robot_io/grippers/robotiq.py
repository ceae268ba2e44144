"""Robotiq's two-finger grippers (2F-85, 2F-140) over Modbus RTU, through Robotiq's USB to RS-485 adapter.

Registers, bits and fault codes are those of Robotiq's "2F-85 & 2F-140 Instruction Manual", section "Control":
three registers are written (action; position; speed and force) and three are read (status; fault and the position's
echo; position and current). Position counts rise as the fingers close.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from memrt.robot_io.grippers.settings import GripperConfig
from memrt.runtime.errors import MemrtError

BAUD, SLAVE_ADDRESS = 115_200, 9  # as delivered
ANSWER_S = 0.1  # a gripper answers within a few milliseconds
OUTPUT, INPUT, REGISTERS = 0x03E8, 0x07D0, 3
ACTIVATE, GO_TO = 0x01, 0x08  # rACT and rGTO, also gACT and gGTO in the status
ACTIVATED = 3  # gSTA, bits 4 and 5 of the status
OPEN_COUNT, CLOSED_COUNT = 3, 230  # what a 2F-85 reports at its ends; it takes 0 to 255, and 255 presses
PERIOD_S = 0.02
ACTIVATION_S = 10.0  # the fingers close and open once, which takes about three seconds
SILENT_CYCLES = 10  # in a row without an answer: about a second, and the gripper is gone

FAULTS = {
    0x05: "the action waits for the activation to end",
    0x07: "the gripper is not activated",
    0x08: "the gripper is too hot; let it cool",
    0x09: "the gripper has heard nothing for a second",
    0x0A: "the gripper's supply is below its minimum",
    0x0B: "an automatic release is going on",
    0x0C: "an internal fault; contact Robotiq",
    0x0D: "the activation failed; see that the fingers can move",
    0x0E: "too high a current",
    0x0F: "an automatic release has ended",
}


def open_robotiq(robot: str, config: GripperConfig) -> RobotiqGripper:
    """Open and activate the gripper of a robot; unless it is active already its fingers close and open once.

    Raises MemrtError when the package or the adapter is missing, nothing answers, or the activation fails.
    """
    return RobotiqGripper(robot, config, _instrument(robot, str(config.path)))


class RobotiqGripper:
    """A `Gripper`. One thread writes the newest command and reads the status, 50 times a second."""

    def __init__(self, robot: str, config: GripperConfig, instrument: Any) -> None:
        self._robot, self._config, self._instrument = robot, config, instrument
        self._lock = threading.Lock()
        self._wanted: int | None = None  # position counts
        self._opening = 1.0
        self._fault = ""
        self._quit = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gripper", daemon=True)
        try:
            self._activate()
        except BaseException:
            self._instrument.serial.close()
            raise
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
            self._wanted = _to_counts(opening)

    def close(self) -> None:
        """End the thread and give the adapter back; the gripper holds what it holds."""
        self._quit.set()
        self._thread.join()
        self._instrument.serial.close()

    def _activate(self) -> None:
        try:
            status = self._read()
            if status.activated and not status.fault:
                return
            self._write(0, 0)  # clears a fault
            self._write(ACTIVATE, 0)
            for _ in range(round(ACTIVATION_S / PERIOD_S)):
                status = self._read()
                if status.activated:
                    return
                self._quit.wait(PERIOD_S)
        except (OSError, ValueError) as error:
            raise self._refusal(
                "an answer", error, "switch the gripper on, and check the cable and that it is a Robotiq 2F"
            ) from error
        found = FAULTS.get(status.fault, "none") if status.fault else "none"
        raise self._refusal("its activation to succeed", found, "see that the fingers can move, and begin again")

    def _run(self) -> None:
        sent: int | None = None
        silent = 0
        while not self._quit.wait(PERIOD_S):
            with self._lock:
                wanted = self._wanted
            try:
                if wanted is not None and wanted != sent:
                    self._write(ACTIVATE | GO_TO, wanted)
                    sent = wanted
                status = self._read()
            except (OSError, ValueError) as error:
                silent += 1
                sent = None  # it may not have arrived
                if silent == SILENT_CYCLES:
                    self._fail(f"the gripper does not answer: {error}")
                continue
            silent = 0
            with self._lock:
                self._opening = status.opening
            if not status.activated:
                self._fail("the gripper has lost its activation, as it does without power")
            elif status.fault:
                self._fail(FAULTS.get(status.fault, f"fault {status.fault:#x} of the gripper"))

    def _fail(self, why: str) -> None:
        with self._lock:
            self._fault = self._fault or " ".join(why.split())

    def _write(self, action: int, position: int) -> None:
        speed, force = round(self._config.speed * 255), round(self._config.force * 255)
        self._instrument.write_registers(OUTPUT, [action << 8, position, speed << 8 | force])

    def _read(self) -> _Status:
        return _Status(self._instrument.read_registers(INPUT, REGISTERS))

    def _refusal(self, expected: str, found: object, fix: str) -> MemrtError:
        what = f"the gripper of robot `{self._robot}` at {self._config.path}"
        return MemrtError(what, expected=expected, found=found, fix=fix)


class _Status:
    """The three registers that are read, taken apart."""

    def __init__(self, registers: list[int]) -> None:
        status, fault, position = registers[0] >> 8, registers[1] >> 8, registers[2] >> 8
        self.activated = bool(status & ACTIVATE) and (status >> 4 & 0x3) == ACTIVATED
        self.fault = fault & 0x0F  # gFLT; the high half is the optional controller's
        self.opening = min(max((CLOSED_COUNT - position) / (CLOSED_COUNT - OPEN_COUNT), 0.0), 1.0)


def _to_counts(opening: float) -> int:
    if opening <= 0.0:
        return 255
    if opening >= 1.0:
        return 0
    return round(CLOSED_COUNT - opening * (CLOSED_COUNT - OPEN_COUNT))


def _instrument(robot: str, path: str) -> Any:
    what = f"the gripper of robot `{robot}`"
    try:
        import minimalmodbus
        import serial
    except ModuleNotFoundError as error:
        raise MemrtError(
            what,
            expected=f"the package {error.name}",
            found="an installation without it",
            fix="pip install 'memrt[robotiq]'",
        ) from error
    try:
        port = serial.Serial(path, BAUD, timeout=ANSWER_S, write_timeout=ANSWER_S, exclusive=True)
    except (OSError, ValueError) as error:
        by_id = Path("/dev/serial/by-id")
        there = sorted(map(str, by_id.iterdir())) if by_id.is_dir() else []
        raise MemrtError(
            what,
            expected=f"a serial adapter at {path} that nobody else uses",
            found=f"{error}; there is {', '.join(there) or 'no serial adapter on this computer'}",
            fix="plug it in, correct `gripper.path`, or join the group `dialout`",
        ) from error
    return minimalmodbus.Instrument(port, SLAVE_ADDRESS)
