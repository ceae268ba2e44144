"""Row: process death, on either side of the link; and processes that only stop for a while."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from arm_driver import Rig, eventually
from chain import FR3, Camera, Looks, StateListener, Watched, largest_rates

from memrt.robot_io.link.client import LinkRobot
from memrt.robot_io.link.session import Reaction, Watchdog
from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.types import ActionChunk, RobotMode

pytestmark = pytest.mark.real_time

WATCHDOG = Watchdog(Watchdog().brake_after_ns, 1 * NS_PER_S)  # a runtime is not to be taken for dead before it is
DT_NS = 50 * NS_PER_MS


@pytest.fixture
def rigs(tmp_path):
    """Makes nodes in this process whose camera takes pictures."""
    with contextlib.ExitStack() as stack:

        def make(watchdog: Watchdog = WATCHDOG) -> Rig:
            made = Rig(tmp_path, watchdog)
            stack.callback(made.close)
            stack.callback(Camera(made.driver).close)
            return made

        yield make


def test_a_killed_runtime_is_silence_the_arm_brakes_inside_its_limits_and_the_next_runtime_finds_it_disarmed(
    rigs, runtimes
):
    rig = rigs()
    looks, runtime = Looks(rig.node), runtimes(rig.endpoint)
    with Watched(rig.driver) as watched:
        assert eventually(lambda: abs(rig.driver.proprioception()[1][0]) > 0.1)
        killed_ns = runtime.send(signal.SIGKILL)
        assert eventually(lambda: rig.node._session.mode is RobotMode.FAULT)
        assert eventually(rig.driver.at_rest)
        time.sleep(0.1)
    assert looks.first_after(WATCHDOG.brake_after_ns)[1] is Reaction.BRAKE
    assert looks.first_after(WATCHDOG.fault_after_ns)[1] is Reaction.BRAKE
    assert "silent for" in rig.node._session.fault
    times_s, joints = watched.path
    speed, acceleration, jerk = largest_rates(times_s, joints)
    assert (acceleration <= FR3.ddq_max * 1.001).all()
    assert (jerk <= FR3.dddq_max * 1.001).all()
    assert speed[0] > 0.2
    moved_s = times_s[1:][np.abs(np.diff(joints[:, 0])) > 1e-6]
    print(f"at rest after the kill: {moved_s[-1] * 1e3 - killed_ns / NS_PER_MS:.0f} ms")

    stood_at = rig.driver.proprioception()[1]
    after = rig.client()
    assert after.mode is RobotMode.DISARMED
    after.send(ActionChunk(np.tile(stood_at, (16, 1)) + 0.1, time.monotonic_ns() + DT_NS, DT_NS, 1))
    assert eventually(lambda: after.statistics.get("chunks while not running") == 1)
    assert (rig.driver.proprioception()[1] == stood_at).all()
    after.arm()
    assert after.mode is RobotMode.RUNNING


def test_a_runtime_that_is_stopped_for_too_long_finds_the_robot_in_fault_and_says_so(rigs, runtimes):
    rig = rigs()
    runtime = runtimes(rig.endpoint)
    runtime.send(signal.SIGSTOP)
    assert eventually(lambda: rig.node._session.mode is RobotMode.FAULT)
    assert eventually(rig.driver.at_rest)
    stood_at = rig.driver.proprioception()[1]
    runtime.send(signal.SIGCONT)
    told = runtime.told()
    assert told["status"] == "fault"
    # Its supervisor may look before its own ear has caught up.
    assert "the link was silent for" in told["reason"] or "nothing was heard from the robot's node" in told["reason"]
    assert (rig.driver.proprioception()[1] == stood_at).all()  # what it still had to say moved nothing


def test_a_runtime_that_is_stopped_for_a_moment_goes_on(rigs, runtimes):
    """Longer than 50 ms, shorter than the second deadline, which is out of the way here."""
    rig = rigs(Watchdog(WATCHDOG.brake_after_ns, 60 * NS_PER_S))
    runtime = runtimes(rig.endpoint)
    runtime.send(signal.SIGSTOP)
    assert eventually(rig.driver.at_rest)
    assert rig.node._session.braked_for_silence
    runtime.send(signal.SIGCONT)
    assert eventually(lambda: not rig.driver.at_rest())
    assert rig.node._session.mode is RobotMode.RUNNING


SIM = """
name: quick-to-brake
driver: sim
arm: {model: fr3, tolerance: 0.1}
home: [0.0, -0.0601, 0.0, -2.5094, 0.0, 2.4492, 0.7854]
cameras: [front, wrist]
link: {brake_after_ms: 50, fault_after_ms: 2000}   # a test machine may be held up for 200 ms before the test begins
"""


@pytest.fixture
def simulator(tmp_path):
    """`memrt node` with the simulator, as somebody would start it by hand: it outlives whoever commands it."""
    robot, endpoint = tmp_path / "robot.yaml", f"ipc://{tmp_path}/robot"
    robot.write_text(SIM)
    command = [sys.executable, "-m", "memrt.robot_io.serve_node", str(robot), "--endpoint", endpoint]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    process.endpoint = endpoint
    assert "listens at" in process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def distance(old, new) -> float:
    """Of the joint that moved furthest between two states [rad]."""
    return float(np.abs(new.proprioception - old.proprioception)[:-1].max())


def test_the_simulated_arm_comes_to_rest_when_its_runtime_is_killed(simulator, runtimes):
    """Seen by a second subscriber to the states that the node publishes; the runtime is gone, the node tells."""
    listener = StateListener(simulator.endpoint)
    try:
        runtime = runtimes(simulator.endpoint)
        assert eventually(lambda: len(listener.states) > 10 and listener.speed() > 0.1)
        killed_ns = runtime.send(signal.SIGKILL)
        assert eventually(lambda: listener.states[-1].mode is RobotMode.FAULT, 60)
        assert eventually(lambda: listener.speed() < 1e-3, 60)
        assert listener.modes_since(killed_ns) == [RobotMode.RUNNING, RobotMode.FAULT]
        after = [state for state in listener.states if state.t_ns > killed_ns]
        moved = [new.t_ns for old, new in itertools.pairwise(after) if distance(old, new) > 1e-4]
        print(f"measured at rest after the kill: {(moved[-1] - killed_ns) / NS_PER_MS:.0f} ms")
        assert all((state.proprioception[:-1] >= FR3.q_min).all() for state in after)
        assert all((state.proprioception[:-1] <= FR3.q_max).all() for state in after)
        assert after[-1].remaining_ns == 0

        again = LinkRobot(simulator.endpoint, connect_ms=60_000)
        try:
            assert again.mode is RobotMode.DISARMED
        finally:
            again.close()
    finally:
        listener.close()


def test_the_kernel_ends_other_processes_before_the_node_where_it_may(simulator):
    probe = "from pathlib import Path; Path('/proc/self/oom_score_adj').write_text('-900')"
    permitted = subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False).returncode == 0
    score = int(Path(f"/proc/{simulator.pid}/oom_score_adj").read_text())
    assert score == (-900 if permitted else 0)


def test_a_killed_node_ends_the_run_and_is_named(simulator, runtimes):
    """A robot's own controller stops an arm whose node died; the simulator's arm dies with its node."""
    runtime = runtimes(simulator.endpoint)
    os.kill(simulator.pid, signal.SIGKILL)
    told = runtime.told()
    assert told["status"] == "fault"
    assert told["reason"].startswith("nothing was heard from the robot's node for")


def test_a_node_that_is_stopped_for_too_long_ends_the_run_and_does_not_go_on_by_itself(simulator, runtimes):
    listener = StateListener(simulator.endpoint)
    try:
        runtime = runtimes(simulator.endpoint)
        os.kill(simulator.pid, signal.SIGSTOP)
        told = runtime.told()
        assert "nothing was heard from the robot's node" in told["reason"]
        time.sleep(2.0)  # the node's own deadline of silence
        stopped_ns = time.monotonic_ns()
        os.kill(simulator.pid, signal.SIGCONT)
        assert eventually(lambda: listener.states[-1].sent_ns > stopped_ns and listener.speed() < 1e-3)
        assert listener.states[-1].mode in (RobotMode.FAULT, RobotMode.STOPPED)
    finally:
        listener.close()
