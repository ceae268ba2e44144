"""Row: link silent > 50 ms / > 200 ms. The client falls silent while the arm moves; only silence tells the node."""

import time

import numpy as np
import pytest
from arm_driver import Rig, eventually
from chain import FR3, Looks, Watched, largest_rates

from memrt.robot_io.link.session import Reaction, Watchdog
from memrt.robot_io.link.wire import Command, Hello
from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import ActionChunk, RobotMode

pytestmark = pytest.mark.real_time

PROMISED = Watchdog()
STEP_NS = 100 * NS_PER_MS
ROUND_NS = 10 * NS_PER_MS  # how often a node looks, on a computer that lets it


def moving(rig: Rig):
    """A client whose arm is on a way of six seconds. One that this computer has held up for 200 ms is replaced."""
    while True:
        robot = rig.client()
        robot.arm()
        actions = np.tile(robot.observe().proprioception, (60, 1))
        actions[:, 0] += 0.04 * np.arange(60)
        robot.send(ActionChunk(actions, time.monotonic_ns() + STEP_NS, STEP_NS, 1))
        if eventually(lambda: not rig.driver.at_rest()) and robot.mode is RobotMode.RUNNING:
            return robot
        fall_silent(robot)
        time.sleep(0.3)


def fall_silent(robot) -> None:
    """As a dead process would: no message any more, no goodbye."""
    robot._heartbeat.close()


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path, PROMISED)
    yield made
    made.close()


def test_the_promised_deadlines_are_the_defaults():
    assert (PROMISED.brake_after_ns, PROMISED.fault_after_ns) == (50 * NS_PER_MS, 200 * NS_PER_MS)


def test_silence_brakes_at_the_first_look_after_50_ms_inside_the_limits_and_is_a_fault_after_200(rig):
    looks, robot = Looks(rig.node), moving(rig)
    with Watched(rig.driver) as watched:
        time.sleep(0.2)
        fall_silent(robot)
        silent_ns = time.monotonic_ns()
        assert eventually(lambda: rig.node._session.mode is RobotMode.FAULT)
        assert eventually(rig.driver.at_rest)
        time.sleep(0.1)
    silence_ns, reaction = looks.first_after(PROMISED.brake_after_ns)
    assert reaction is Reaction.BRAKE
    print(f"braked after a silence of: {silence_ns / NS_PER_MS:.0f} ms")
    silence_ns, reaction = looks.first_after(PROMISED.fault_after_ns)
    assert reaction is Reaction.BRAKE
    assert f"the link was silent for {silence_ns / NS_PER_MS:.0f} ms" in rig.node._session.fault
    print(f"fault after a silence of: {silence_ns / NS_PER_MS:.0f} ms")

    times_s, joints = watched.path
    speed, acceleration, jerk = largest_rates(times_s, joints)
    assert speed[0] > 0.3
    assert (speed <= FR3.dq_max).all()
    assert (acceleration <= FR3.ddq_max * 1.001).all()
    assert (jerk <= FR3.dddq_max * 1.001).all()
    moved = times_s[1:][np.abs(np.diff(joints[:, 0])) > 1e-6]
    print(f"at rest after: {moved[-1] * 1e3 - silent_ns / NS_PER_MS:.0f} ms")
    assert joints[-1, 0] == joints[-2, 0]


def test_a_fault_by_silence_takes_a_new_session_that_comes_up_disarmed(rig):
    robot = moving(rig)
    fall_silent(robot)
    assert eventually(lambda: robot.mode is RobotMode.FAULT)
    assert "silent for" in robot.fault_reason
    for command in (robot.resume, robot.arm, robot.home):
        with pytest.raises(MemrtError, match="has ended"):
            command()
    robot.stop()  # it is at rest, and may say so
    assert robot.mode is RobotMode.FAULT
    refusal = rig.node._session.hello(Hello(robot._session, 9, 2, ""), time.monotonic_ns(), "")
    assert refusal

    assert eventually(rig.driver.at_rest)
    stood_at = rig.driver.proprioception()[1]
    after = rig.client()
    assert after.mode is RobotMode.DISARMED
    accepted = rig.driver.control.stats()["accepted"]
    for client in (robot, after):  # one has ended, the other is not armed
        client.send(ActionChunk(np.tile(stood_at, (16, 1)) + 0.1, time.monotonic_ns() + STEP_NS, STEP_NS, 1))
    assert eventually(lambda: after.statistics.get("chunks while not running", 0) >= 1)
    assert rig.driver.control.stats()["accepted"] == accepted
    assert (rig.driver.proprioception()[1] == stood_at).all()


def test_a_short_silence_brakes_and_the_robot_goes_on_with_the_next_message(chain, monkeypatch):
    """Between the two deadlines; the second is out of the way here, since nobody can pause for exactly 100 ms."""
    run = chain(watchdog=Watchdog(PROMISED.brake_after_ns, 60 * NS_PER_S))
    run.settle()
    silences = run.node._session.silences
    monkeypatch.setattr(run.robot._heartbeat, "_send", lambda sequence: None)
    assert eventually(lambda: run.node._session.braked_for_silence)
    assert eventually(run.driver.at_rest)
    assert run.node._session.mode is RobotMode.RUNNING
    monkeypatch.undo()
    assert eventually(lambda: not run.driver.at_rest())
    assert run.node._session.silences > silences
    assert (run.loop.record.status, run.node._session.mode) == ("running", RobotMode.RUNNING)


def test_an_arm_on_its_way_home_is_braked_too(rig):
    """It moves although its mode is not `running`."""
    robot = moving(rig)
    robot.stop()
    looks = []
    go_home, brake = rig.driver.go_home, rig.driver.brake
    rig.driver.brake = lambda: (looks.append("brake"), brake())
    rig.driver.go_home = lambda: (looks.append("home"), go_home())
    robot.home()
    assert looks == ["home"]
    fall_silent(robot)
    assert eventually(lambda: looks == ["home", "brake"])
    time.sleep(0.05)
    assert looks == ["home", "brake"]  # once
    assert rig.node._session.mode is RobotMode.STOPPED


def test_a_command_of_a_dead_session_is_refused_even_when_it_comes_late(rig):
    robot = moving(rig)
    fall_silent(robot)
    assert eventually(lambda: rig.node._session.mode is RobotMode.FAULT)
    after = rig.client()
    error, reaction = rig.node._session.command(
        Command(robot._session, 99, "resume", 0), time.monotonic_ns(), at_rest=True
    )
    assert (bool(error), reaction) == (True, Reaction.NOTHING)
    assert after.mode is RobotMode.DISARMED
