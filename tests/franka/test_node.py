"""A client, the link, the node and the driver together: what an operator meets when the robot stops by itself."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from permissive_robot import eventually, permissive_robot

from memrt.robot_io.config import RobotConfig
from memrt.robot_io.drivers import DriverOptions, find_driver
from memrt.robot_io.link.client import LinkRobot
from memrt.robot_io.link.node import RobotNode
from memrt.robot_io.link.session import Watchdog
from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import ActionChunk, RobotMode

pytestmark = pytest.mark.real_time

ROBOT = RobotConfig(name="fr3", driver="franka", cameras=(), settings={"realtime": "ignore"})
PATIENT = Watchdog(1 * NS_PER_S, 2 * NS_PER_S)  # silence has its own tests; this computer may be busy
DT_NS = 20 * NS_PER_MS


@pytest.fixture(scope="module")
def robot():
    with permissive_robot(1) as robot:
        yield robot


@pytest.fixture
def endpoint(robot, tmp_path):
    with find_driver("franka", "test")(ROBOT, DriverOptions(host=robot[0])) as driver:
        node = RobotNode(driver, f"ipc://{tmp_path}/robot", PATIENT)
        thread = threading.Thread(target=node.serve)
        thread.start()
        yield f"ipc://{tmp_path}/robot"
        node.shutdown.set()
        thread.join()
        assert eventually(driver.at_rest)


def accepted(act):
    """What `act` returns once it is not refused: a node waits for its last client, and a slow arm for its rest."""
    result = []

    def attempt() -> bool:
        try:
            result.append(act())
        except MemrtError:
            return False
        return True

    assert eventually(attempt)
    return result[0]


@contextmanager
def client(endpoint):
    client = accepted(lambda: LinkRobot(endpoint))
    try:
        yield client
    finally:
        client.close()


def joints(client) -> np.ndarray:
    return client.observe().proprioception[:7]


def armed(client) -> None:
    accepted(client.arm)
    assert eventually(lambda: client.statistics.get("arm held by") == "libfranka's loop"), client.fault_reason


def drive(client, by: float) -> None:
    """Send chunks that move joint 4 by `by` rad in a second, until it is on its way."""
    before = joints(client)

    def moves() -> bool:
        actions = np.tile(np.append(joints(client), 1.0), (50, 1))
        actions[:, 3] += (before[3] + by - actions[0, 3]) * (1 - np.cos(np.pi * np.arange(1, 51) / 50)) / 2
        client.send(ActionChunk(actions, time.monotonic_ns() + 2 * DT_NS, DT_NS, 1))
        return eventually(lambda: abs(joints(client)[3] - before[3]) > abs(by) / 4, seconds=1.0)

    assert eventually(moves), {name: value for name, value in client.statistics.items() if value}


def test_a_stop_is_answered_when_the_arm_was_measured_at_rest(endpoint):
    with client(endpoint) as robot:
        assert robot.mode is RobotMode.DISARMED
        armed(robot)
        drive(robot, by=0.3)
        accepted(robot.stop)
        assert robot.mode is RobotMode.STOPPED
        stopped_at = joints(robot)
        time.sleep(0.1)
        assert joints(robot) == pytest.approx(stopped_at, abs=0.01)
        accepted(robot.resume)
        assert robot.mode is RobotMode.RUNNING


def test_after_a_reflex_a_new_session_is_disarmed_and_arming_recovers(robot, endpoint):
    tell = robot[1]
    with client(endpoint) as first:
        armed(first)
        recovered = tell("recovered")
        tell("reflex")
        assert eventually(lambda: first.mode is RobotMode.FAULT)
        assert "communication_constraints_violation" in first.fault_reason
    assert tell("recovered") == recovered, "nothing recovers by itself"
    with client(endpoint) as second:
        assert second.mode is RobotMode.DISARMED
        assert tell("recovered") == recovered
        armed(second)
        assert tell("recovered") == recovered + 1
        drive(second, by=-0.1)
        accepted(second.stop)
