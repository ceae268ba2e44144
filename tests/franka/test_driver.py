"""The driver against franky-sim's FR3, over libfranka's protocol on loopback. In real time: no test is on time."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from permissive_robot import eventually, permissive_robot

from memrt.robot_io.config import RobotConfig
from memrt.robot_io.drivers import DriverOptions, find_driver
from memrt.robot_io.franka import driver as franka_driver
from memrt.robot_io.franka import forwarding
from memrt.robot_io.franka.forwarding import Control
from memrt.robot_io.franka.settings import TORQUE_MAX
from memrt.robot_io.grippers.settings import GripperConfig
from memrt.runtime.clock import NS_PER_MS, NS_PER_S

pytestmark = pytest.mark.real_time

ROBOT = RobotConfig(
    name="fr3", driver="franka", cameras=(), gripper=GripperConfig(kind="franka_hand"), settings={"realtime": "ignore"}
)
TORQUE_RATE_MAX = 1.0  # libfranka's kMaxTorqueRate, 1000 N m/s, per millisecond
REASON = "communication_constraints_violation"


@pytest.fixture(scope="module")
def robot():
    with permissive_robot() as robot:
        yield robot


@pytest.fixture
def driver(robot):
    host, tell = robot
    tell("release")
    tell("torques")
    with find_driver("franka", "test")(ROBOT, DriverOptions(host=host)) as driver:
        yield driver


def arm(driver) -> None:
    driver.follow()
    assert eventually(lambda: driver._forwarding.holder is Control.LIBFRANKA), driver.fault


def push(driver, joint=3, by=0.2, opening=1.0, seconds=1.0) -> str:
    """A smooth move of one joint, and what the driver says of it."""
    start = driver.proprioception()[1]
    share = np.linspace(0, 1, 100)[1:, None]
    actions = np.repeat(start[None], 99, axis=0)
    actions[:, joint : joint + 1] += by * share**3 * (10 - 15 * share + 6 * share**2)
    actions[:, 7] = opening
    dt_ns = round(seconds * NS_PER_S / 100)
    return driver.push(actions, time.monotonic_ns() + dt_ns, dt_ns, 1)


def commanded(robot) -> np.ndarray:
    """The torques of a hundred cycles or more [n, 7]."""
    torques = []
    assert eventually(lambda: torques.extend(robot[1]("torques")) or len(torques) > 100)
    return np.array(torques)


def reaches(driver, angle) -> bool:
    """Whether joint 4 comes to `angle`; a chunk that a held-up computer has forgotten is sent again."""

    def there() -> bool:
        by = angle - driver.proprioception()[1][3]
        return not push(driver, by=by) and eventually(
            lambda: abs(driver.proprioception()[1][3] - angle) < 0.02 and driver.at_rest(), seconds=4.0
        )

    return eventually(there, seconds=60.0)


def sets_out(driver, speed) -> bool:
    """Whether a move of joint 4 becomes as fast as `speed` [rad/s]; sent again as in `reaches`."""

    def on_its_way() -> bool:
        by = 0.6 if driver.proprioception()[1][3] < -1.5 else -0.6
        return not push(driver, by=by) and eventually(lambda: driver._forwarding.measured.speed > speed, seconds=2.0)

    return eventually(on_its_way, seconds=60.0)


def test_boots_disarmed(robot, driver):
    t_ns, values = driver.proprioception()
    assert 0 <= time.monotonic_ns() - t_ns < NS_PER_S
    assert values.shape == (8,)
    assert eventually(driver.at_rest)
    assert "not started" in push(driver)
    assert driver.report()[1] == {"robot mode": "Idle", "arm held by": "the robot itself"}
    assert not robot[1]("torques"), "nothing is commanded before the arm is armed"


def test_follows_chunks_within_what_the_robot_checks(robot, driver):
    start = driver.proprioception()[1]
    arm(driver)
    assert reaches(driver, start[3] + 0.2), driver.fault
    assert not driver.fault
    moved = driver.proprioception()[1] - start
    assert moved[:7] == pytest.approx([0, 0, 0, 0.2, 0, 0, 0], abs=0.02)
    torques = commanded(robot)
    assert np.abs(np.diff(torques, axis=0)).max() <= TORQUE_RATE_MAX
    assert (np.abs(torques).max(axis=0) < TORQUE_MAX).all()


def test_begins_where_the_arm_stands(robot, driver):
    arm(driver)
    torques = np.abs(commanded(robot)).max(axis=0)
    assert (torques < 1.0).all(), "an arm that is to stay where it is needs hardly any torque"


def test_brakes_to_rest_and_gives_the_arm_back(driver, monkeypatch):
    monkeypatch.setattr(forwarding, "RELEASE_AFTER_NS", 200 * NS_PER_MS)
    arm(driver)
    assert sets_out(driver, speed=0.2)
    driver.brake()
    assert not driver.at_rest(), "it moves"
    assert push(driver) == "stopped"
    assert eventually(driver.at_rest)
    assert driver._forwarding.measured.speed < forwarding.REST_SPEED
    assert eventually(lambda: driver._forwarding.holder is Control.ROBOT)
    assert not driver.fault
    arm(driver)
    assert not push(driver)


def test_goes_home(driver):
    def gets_there() -> bool:
        driver.go_home()
        assert not driver.at_rest()
        return eventually(driver.at_rest) and np.abs(driver.proprioception()[1][:7] - ROBOT.home_pose).max() < 0.02

    assert eventually(gets_there), "a way that a held-up computer forgot is begun again"


def opens(driver, opening) -> bool:
    assert not push(driver, by=0.0, opening=opening, seconds=0.2)
    return eventually(lambda: abs(driver.proprioception()[1][7] - opening) < 0.05, seconds=5.0)


def test_the_hand_follows_the_chunks_opening(driver):
    arm(driver)
    for opening in (0.0, 1.0):
        assert eventually(lambda wanted=opening: opens(driver, wanted))


def test_a_reflex_is_a_fault_that_only_arming_recovers(robot, driver):
    tell = robot[1]
    arm(driver)
    before = tell("recovered")
    tell("reflex")
    assert eventually(lambda: driver._fault)
    driver.brake()
    assert REASON in driver.fault, "a brake from before the node knew of the fault does not forget it"
    driver.brake()
    assert not driver.fault
    assert eventually(driver.at_rest)
    assert "not started" in push(driver)
    assert driver.report()[1]["robot mode"] == "Reflex"
    assert tell("recovered") == before, "nothing recovers by itself"
    arm(driver)
    assert tell("recovered") == before + 1
    assert driver.report()[0]["recoveries on arming"] == 1
    assert not push(driver)


def test_does_not_arm_while_the_user_stop_is_pressed(robot, driver):
    tell = robot[1]
    tell("user stop")
    assert eventually(lambda: driver.report()[1]["robot mode"] == "UserStopped")
    assert not driver.fault, "standing still with the user stop pressed is none"
    driver.follow()
    assert eventually(lambda: driver.fault)
    assert "user stop is pressed" in driver.fault
    driver.brake()
    tell("release")
    assert eventually(lambda: driver.report()[1]["robot mode"] == "Idle")
    arm(driver)


@contextmanager
def held_up(driver):
    """Inside, the forwarding hangs, as on a busy computer."""
    measuring, hangs, go_on = driver._forwarding.measuring, threading.Event(), threading.Event()

    def slow(*, in_control):
        del measuring.read
        hangs.set()
        go_on.wait()
        return measuring.read(in_control=in_control)

    measuring.read = slow
    try:
        assert hangs.wait(60)
        yield
    finally:
        go_on.set()


def test_libfranka_stops_the_arm_when_python_hangs(driver, monkeypatch):
    arm(driver)
    assert sets_out(driver, speed=0.3)
    monkeypatch.setattr(forwarding, "GIVE_UP_NS", 200 * NS_PER_MS)
    with held_up(driver):
        libfranka = driver._forwarding._arm  # the thread that hangs is the one that reads it otherwise
        time.sleep(0.3)
        assert eventually(lambda: np.abs(libfranka.state.dq).max() < 0.1)
        assert libfranka.is_in_control
    assert eventually(lambda: "held up" in driver.fault)
    driver.brake()
    assert eventually(driver.at_rest)


def test_goes_on_after_a_short_hang(driver):
    arm(driver)
    assert sets_out(driver, speed=0.1)
    with held_up(driver):
        time.sleep(0.1)
    assert eventually(lambda: driver.report()[0]["forwarding held up"] >= 1)
    assert eventually(driver.at_rest), "the chunk is forgotten, since the arm was stopped on its way"
    if not driver.fault:  # a busy computer may have made a long hang of it
        assert not push(driver, by=0.1)


def test_a_silent_robot_is_a_fault(robot, driver, monkeypatch):
    monkeypatch.setattr(franka_driver, "SILENT_NS", 100 * NS_PER_MS)
    arm(driver)
    robot[1](("stall", 0.5))
    assert eventually(lambda: (driver.proprioception(), driver.fault)[1])
    assert "no state" in driver.fault
