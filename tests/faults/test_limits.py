"""Rows: limit or workspace breach; measured joint outside its limits, robot reflex."""

import threading
import time

import numpy as np
import pytest
from arm_driver import eventually
from chain import FR3, Watched, largest_rates

from memrt.robot_io.bounds import BENT_IN_A_ROW, ArmBounds
from memrt.robot_io.config import load_robot
from memrt.robot_io.drivers import DriverOptions
from memrt.robot_io.link.client import LinkRobot
from memrt.robot_io.link.node import RobotNode
from memrt.robot_io.link.session import Watchdog
from memrt.robot_io.seam_driver import SeamDriver
from memrt.robot_io.workspace import WorkspaceConfig, tool_position
from memrt.runtime._core import SeamLimits
from memrt.runtime.clock import NS_PER_MS, NS_PER_S
from memrt.runtime.errors import MemrtError
from memrt.runtime.kinematics import franka_with_hand
from memrt.runtime.types import ActionChunk, RobotMode

pytestmark = pytest.mark.real_time

QUICK = {"execute": 2}
BOX = WorkspaceConfig(min=(0.2, -0.15, 0.0), max=(0.8, 0.15, 0.9))
ARM = franka_with_hand()


def bounds(workspace: WorkspaceConfig | None = None) -> ArmBounds:
    return ArmBounds(SeamLimits.fr3(0.0), arm=ARM, workspace=workspace)


def into_the_limit(chunk):
    chunk.actions[:, 6] = 3.1  # the range ends at 3.016
    return chunk


def too_fast(chunk):
    chunk.actions[::2, 5] += 0.6  # 12 rad/s, of 4.18
    return chunk


def far_outside(chunk):
    chunk.actions[:, 3] = 1.0  # the range ends at -0.15
    return chunk


@pytest.mark.parametrize(
    ("spoil", "counted"), [(into_the_limit, "chunks beyond a joint's range"), (too_fast, "chunks faster than the arm")]
)
def test_targets_beyond_the_limits_are_clamped_or_take_longer_and_going_on_so_holds(chain, spoil, counted):
    run = chain(bounds=bounds(), **QUICK).settle()
    with Watched(run.driver) as watched:
        run.low_level.spoil = spoil
        run.held("the robot refused 3 chunks in a row")
        run.rested()
        time.sleep(0.1)
    times_s, joints = watched.path
    for found, limit in zip(largest_rates(times_s, joints), (FR3.dq_max, FR3.ddq_max, FR3.dddq_max), strict=True):
        assert (found <= limit * 1.001).all()
    assert (joints <= FR3.q_max + 1e-9).all()
    assert (joints >= FR3.q_min - 1e-9).all()
    assert eventually(lambda: run.robot.statistics.get("chunks refused", 0) >= 3)
    assert run.robot.statistics[counted] >= BENT_IN_A_ROW + 3
    assert "as 10 chunks or more before it" in run.robot.statistics["last refusal"]
    run.low_level.spoil = lambda chunk: chunk
    run.settle()


def test_a_target_far_outside_is_refused_and_the_third_chunk_in_a_row_holds(chain):
    run = chain(bounds=bounds(), **QUICK).settle()
    run.low_level.spoil = far_outside
    run.held("the robot refused 3 chunks in a row")
    run.rested()
    assert np.abs(run.driver.proprioception()[1][3] - -2.0) < 1e-6


def test_the_tool_stays_in_the_workspace_and_asking_on_holds(chain):
    """The swing of the first joint takes the tool 0.25 m to either side; the box ends at 0.15 m."""
    run = chain(bounds=bounds(BOX), **QUICK).settle()
    with Watched(run.driver) as watched:
        run.held("the robot refused 3 chunks in a row")
        run.rested()
    _, joints = watched.path
    sideways = np.abs(tool_position(ARM, joints)[:, 1])
    assert 0.12 < sideways.max() < 0.152
    assert eventually(lambda: "the workspace" in run.robot.statistics.get("last refusal", ""))
    assert run.robot.statistics["chunks that leave the workspace"] >= 3


def test_a_reflex_of_the_robot_is_a_fault_that_nothing_but_a_repaired_robot_and_a_new_session_leaves(chain):
    run = chain(watchdog=Watchdog(2 * NS_PER_S, 3 * NS_PER_S), **QUICK).settle()
    run.driver.fault = "cartesian_reflex"
    assert run.ended() == "cartesian_reflex"
    assert run.loop.record.status == "fault"
    assert eventually(run.driver.at_rest)
    for command in (run.robot.resume, run.robot.arm, run.robot.home):
        with pytest.raises(MemrtError, match="cartesian_reflex"):
            command()
    run.robot._heartbeat.close()  # as a client that ended
    assert eventually(lambda: run.node._session._silent(time.monotonic_ns()))
    during = run.rig.client()
    assert (during.mode, during.fault_reason) == (RobotMode.FAULT, "cartesian_reflex")
    with pytest.raises(MemrtError, match="in fault"):
        during.arm()
    run.driver.fault = ""  # somebody has repaired it
    time.sleep(0.1)
    assert during.mode is RobotMode.FAULT  # never by itself
    with pytest.raises(MemrtError, match="in fault"):
        during.arm()


class Measured(SeamDriver):
    """An arm that is where it was commanded to be, and as far from it as the test says."""

    def __init__(self) -> None:
        home = np.array([*load_robot("sim").home_pose, 1.0])
        super().__init__(load_robot("sim"), DriverOptions(), home)
        self.off = np.zeros(8)

    def proprioception(self):
        q, _, gripper, t_ns = self.control.command()
        measured = np.append(q, gripper) + self.off
        self.check_range(measured)
        return t_ns, measured


@pytest.mark.parametrize("off", [2.5, np.nan], ids=["outside", "no number"])
def test_a_joint_measured_outside_its_range_is_a_fault_for_good(tmp_path, off):
    driver = Measured()
    node = RobotNode(driver, f"ipc://{tmp_path}/robot", Watchdog(20 * NS_PER_S, 40 * NS_PER_S))
    thread = threading.Thread(target=node.serve)
    thread.start()
    robot = LinkRobot(f"ipc://{tmp_path}/robot")
    try:
        robot.arm()
        actions = np.tile(driver.proprioception()[1], (16, 1))
        actions[:, 0] += 0.1 * np.arange(1, 17)
        robot.send(ActionChunk(actions, time.monotonic_ns() + 50 * NS_PER_MS, 250 * NS_PER_MS, 1))
        assert eventually(lambda: not driver.at_rest())
        driver.off[3] = off
        assert eventually(lambda: node._session.mode is RobotMode.FAULT)
        assert "joint 4 was measured at" in node._session.fault
        assert eventually(driver.at_rest)
        driver.off[3] = 0.0
        assert eventually(lambda: robot.mode is RobotMode.FAULT)
        for command in (robot.resume, robot.arm):
            with pytest.raises(MemrtError, match="joint 4 was measured"):
                command()
    finally:
        robot.close()
        node.shutdown.set()
        thread.join()
        driver.close()
