"""A driver for the node under test: the real control loop, joints that follow its commands exactly, one tiny camera."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
import uuid
from pathlib import Path

import numpy as np

from memrt.robot_io.action_spaces import ActionSpaces
from memrt.robot_io.bounds import ArmBounds
from memrt.robot_io.link.client import LinkRobot
from memrt.robot_io.link.node import RobotNode
from memrt.robot_io.link.session import Watchdog
from memrt.runtime._core import ControlLoop, FrameRing, SeamLimits
from memrt.runtime.clock import NS_PER_S

HOME = np.array([0.0, -0.5, 0.0, -2.0, 0.0, 1.5, 0.7])


class ArmDriver:
    name, goal = "arm", "hold still"
    highest_speed = 0.8

    def __init__(self) -> None:
        self.control = ControlLoop(SeamLimits.fr3(), 250.0)
        self.control.start(HOME, 1.0)
        self.control.stop()
        self.ring = FrameRing.create(f"memrt-test-{os.getpid()}-{uuid.uuid4().hex[:8]}", 3, 4, 4, 3)
        self.rings = {"front": self.ring.name}
        self.fault, self.outcome = "", ("running", "")
        self.pushed: list[tuple[np.ndarray, int, int, int]] = []
        self.homed = 0
        self.speeds: list[float] = []
        self.take_picture(1)

    def take_picture(self, index: int) -> None:
        self.ring.write(np.full((4, 4, 3), index, np.uint8), index, time.monotonic_ns())

    def proprioception(self):
        q, _, gripper, t_ns = self.control.command()
        return t_ns, np.append(q, gripper)

    def push(self, actions, t0_ns, dt_ns, revision):
        self.pushed.append((actions, t0_ns, dt_ns, revision))
        return self.control.push(actions, t0_ns, dt_ns, revision)

    def planned(self, t_ns):
        return self.control.planned(t_ns)

    def follow(self) -> None:
        self.control.resume()

    def brake(self) -> None:
        self.control.stop()

    def set_speed(self, speed: float) -> None:
        self.speeds.append(speed)
        self.control.set_speed(speed)

    def go_home(self) -> None:
        self.homed += 1

    def at_rest(self) -> bool:
        return self.control.at_rest

    def remaining_ns(self) -> int:
        return max(0, round(self.control.stats()["remaining_s"] * NS_PER_S))

    def report(self):
        return {"control ticks": float(self.control.stats()["ticks"])}, {}

    def close(self) -> None:
        self.control.shutdown()
        self.ring.close()


class Rig:
    """A node in a thread of this process and as many clients as a test asks for.

    The watchdog is generous, because nothing here may depend on how busy the computer is; silence has its own tests.
    """

    def __init__(
        self,
        folder,
        watchdog: Watchdog | None = None,
        endpoint: str = "",
        keys: Path | None = None,
        spaces: ActionSpaces | None = None,
        bounds: ArmBounds | None = None,
    ) -> None:
        self.driver = ArmDriver()
        self.endpoint = endpoint or f"ipc://{folder}/robot"
        watchdog = watchdog or Watchdog(20 * NS_PER_S, 40 * NS_PER_S)
        self.node = RobotNode(self.driver, self.endpoint, watchdog, keys=keys, spaces=spaces, bounds=bounds)
        self._thread = threading.Thread(target=self.node.serve)
        self._thread.start()
        self._clients: list[LinkRobot] = []

    def client(self, **arguments) -> LinkRobot:
        client = LinkRobot(self.endpoint, **arguments)
        self._clients.append(client)
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.node.shutdown.set()
        self._thread.join()
        self.driver.close()


def tcp_endpoint(host: str) -> str:
    """`tcp://host:port` with a port that was free a moment ago, and the next two."""
    for port in random.sample(range(20_000, 32_000, 3), 100):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for offset in range(3):
                stack.enter_context(socket.socket()).bind((host, port + offset))
            return f"tcp://{host}:{port}"
    raise RuntimeError(f"no three free ports at {host}")


def eventually(condition, seconds: float = 60.0) -> bool:
    """Whether the condition becomes true; long enough for the busiest computer, and no longer than needed."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
