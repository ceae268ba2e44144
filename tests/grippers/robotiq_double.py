"""A Robotiq 2F-85 as its manual describes it, behind pymodbus' own server on a pseudo-terminal.

Client (minimalmodbus) and server (pymodbus) are others' code and know nothing of each other: what they agree on is
Modbus RTU. The registers' meaning is written from the manual, not from the driver.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import tty

from pymodbus.server import ModbusSerialServer
from pymodbus.simulator import DataType, SimData, SimDevice

OPEN, CLOSED = 3, 230


class Robotiq2F85:
    """The gripper's side of the registers. `obstacle` is where its fingers meet an object, in counts."""

    def __init__(self, speed: float = 600.0, activation_s: float = 0.3) -> None:
        self.speed, self.activation_s = speed, activation_s  # counts per second at full speed
        self.position, self.obstacle, self.fault = 100.0, None, 0
        self.requests: list[tuple[int, int, int]] = []  # position, speed, force
        self.activations = 0
        self.mute = False
        self._act = self._goto = False
        self._active_at = 0.0
        self._target, self._rate = 0, 0
        self._moved_at = time.monotonic()

    def write(self, registers: list[int]) -> None:
        self._advance()
        action = registers[0] >> 8
        activate = bool(action & 0x01)
        if activate and not self._act:
            self._active_at = time.monotonic() + self.activation_s
            self.activations += 1
            self.fault = 0
            self.position = OPEN
        self._act, self._goto = activate, bool(action & 0x08)
        if not self._goto:
            return
        self._target, self._rate = registers[1] & 0xFF, registers[2] >> 8
        self.requests.append((self._target, self._rate, registers[2] & 0xFF))
        if not self._ready:
            self.fault = 0x05 if self._act else 0x07

    def read(self) -> list[int]:
        self._advance()
        state = 3 if self._ready else 1 if self._act else 0
        end = min(max(self._target, OPEN), CLOSED)
        touching = self.obstacle is not None and self.position == self.obstacle and end > self.obstacle
        contact = 2 if touching else 3 if self.position == end else 0
        status = contact << 6 | state << 4 | self._goto << 3 | self._act
        return [status << 8, self.fault << 8 | self._target, round(self.position) << 8]

    def lose_power(self) -> None:
        self._act = self._goto = False

    @property
    def _ready(self) -> bool:
        return self._act and time.monotonic() >= self._active_at

    def _advance(self) -> None:
        now = time.monotonic()
        elapsed, self._moved_at = now - self._moved_at, now
        if not (self._ready and self._goto):
            return
        end = min(max(self._target, OPEN), CLOSED)
        if self.obstacle is not None and self.position <= self.obstacle:
            end = min(end, self.obstacle)
        step = elapsed * self.speed * self._rate / 255
        self.position += max(-step, min(step, end - self.position))


class RobotiqServer:
    """pymodbus' RTU server at one end of a cable, `path` is the other."""

    def __init__(self, gripper: Robotiq2F85, address: int = 9) -> None:
        self.gripper = gripper
        self._near, near = os.openpty()
        self._far, far = os.openpty()
        self._slaves = (near, far)
        for end in self._slaves:
            tty.setraw(end)
        self.path = os.ttyname(far)
        self._port, self._address = os.ttyname(near), address
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._threads = [
            threading.Thread(target=self._serve, daemon=True),
            threading.Thread(target=self._pump, args=(self._near, self._far), daemon=True),
            threading.Thread(target=self._pump, args=(self._far, self._near), daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        assert self._started.wait(60)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.shutdown(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._threads[0].join(60)
        for end in (*self._slaves, self._near, self._far):
            os.close(end)

    def _pump(self, source: int, sink: int) -> None:
        while True:
            try:
                data = os.read(source, 256)
                if not (self.gripper.mute and sink == self._far):
                    os.write(sink, data)
            except OSError:  # closed
                return

    def _serve(self) -> None:
        async def access(function, start, address, count, registers, values):
            if values is not None:
                self.gripper.write([*values])
            elif address == 0x07D0:
                registers[0x07D0 - start : 0x07D3 - start] = self.gripper.read()

        async def run() -> None:
            device = SimDevice(self._address, [SimData(0x03E8, count=1100, datatype=DataType.REGISTERS)], action=access)
            self._server = ModbusSerialServer(device, port=self._port, baudrate=115_200)
            await self._server.serve_forever(background=True)
            self._started.set()

        asyncio.set_event_loop(self._loop)
        self._loop.create_task(run())
        self._loop.run_forever()
