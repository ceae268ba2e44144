"""Chunks of velocities and poses over the real link: the driver gets joint targets, or the chunk is refused whole."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from arm_driver import HOME, Rig, eventually

from memrt.robot_io.action_spaces import SPEED_SHARE, ActionSpaces
from memrt.robot_io.config import load_robot
from memrt.robot_io.link.client import LinkRobot
from memrt.robot_io.process import NodeProcess
from memrt.runtime._core import SeamLimits
from memrt.runtime.errors import MemrtError
from memrt.runtime.kinematics import franka_with_hand
from memrt.runtime.types import ActionChunk, ActionSpace
from memrt.sim.env import CONTROL_DT_NS, TabletopEnv
from memrt.sim.expert import Expert

pytestmark = pytest.mark.real_time

DT_NS = 50_000_000
ARM = franka_with_hand()
PATIENT = str(Path(__file__).with_name("patient_sim.yaml"))


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path, spaces=ActionSpaces(SeamLimits.fr3(), arm=ARM, home=HOME))
    yield made
    made.close()


def chunk(own: np.ndarray, space: ActionSpace) -> ActionChunk:
    actions = np.column_stack([own, np.ones(len(own))])
    return ActionChunk(actions, time.monotonic_ns() + 4 * DT_NS, DT_NS, 7, space)


def test_velocities_arrive_as_the_line_from_the_planned_joints(rig) -> None:
    robot = rig.client()
    assert robot.welcome.spaces == [0, 1, 2]
    robot.arm()
    velocity = np.array([0.1, 0, 0, -0.2, 0, 0, 0.3])
    sent = chunk(np.tile(velocity, (16, 1)), ActionSpace.JOINT_VELOCITY)
    robot.send(sent)
    assert eventually(lambda: len(rig.driver.pushed) == 1)
    actions, t0_ns, dt_ns, revision = rig.driver.pushed[0]
    assert (t0_ns, dt_ns, revision) == (sent.t0_ns, DT_NS, 7)
    np.testing.assert_allclose(actions[:, :7], HOME + np.outer(np.arange(1, 17) * DT_NS * 1e-9, velocity), atol=1e-9)
    # A second chunk that begins in the middle of the first goes on from its plan, wherever the arm is by then.
    assert eventually(lambda: rig.driver.control.stats()["accepted"] == 1)
    later = ActionChunk(sent.actions, sent.t0_ns + 8 * DT_NS, DT_NS, 7, ActionSpace.JOINT_VELOCITY)
    robot.send(later)
    assert eventually(lambda: len(rig.driver.pushed) == 2)
    np.testing.assert_allclose(rig.driver.pushed[1][0][0, :7], actions[8, :7], atol=1e-9)


def test_a_slower_robot_is_told_slower_velocities(rig) -> None:
    robot = rig.client()
    robot.configure(speed=0.1)
    robot.arm()
    robot.send(chunk(np.full((16, 7), 0.5), ActionSpace.JOINT_VELOCITY))
    assert eventually(lambda: len(rig.driver.pushed) == 1)
    steps = np.diff(rig.driver.pushed[0][0][:, :7], axis=0)
    np.testing.assert_allclose(steps, 0.1 * SPEED_SHARE * SeamLimits.fr3().dq_max[0] * DT_NS * 1e-9)


def test_poses_arrive_as_joints_that_reach_them(rig) -> None:
    robot = rig.client()
    robot.arm()
    poses = np.repeat(ARM.forward(HOME[None]), 16, axis=0)
    poses[:, 0] += np.linspace(0.002, 0.032, 16)
    robot.send(chunk(poses, ActionSpace.CARTESIAN_POSE))
    assert eventually(lambda: len(rig.driver.pushed) == 1)
    np.testing.assert_allclose(ARM.forward(rig.driver.pushed[0][0][:, :7])[:, :3], poses[:, :3], atol=1e-5)


def test_what_cannot_be_converted_never_reaches_the_driver_and_is_counted(rig) -> None:
    robot = rig.client()
    robot.arm()
    far = np.repeat(ARM.forward(HOME[None]), 16, axis=0)
    far[8:, 2] += 2.0
    robot.send(chunk(far, ActionSpace.CARTESIAN_POSE))
    robot.send(chunk(np.full((16, 7), np.nan), ActionSpace.JOINT_VELOCITY))
    assert eventually(lambda: robot.refused_in_a_row == 2)
    assert rig.driver.pushed == []
    assert eventually(lambda: robot.statistics.get("last refusal") == "non-finite")
    robot.send(chunk(np.zeros((16, 7)), ActionSpace.JOINT_VELOCITY))
    assert eventually(lambda: robot.refused_in_a_row == 0)


def test_a_node_that_knows_joint_positions_only_says_so(tmp_path) -> None:
    rig = Rig(tmp_path)
    try:
        robot = rig.client()
        assert robot.welcome.spaces == [0]
        robot.arm()
        with pytest.raises(MemrtError, match="joint velocity"):
            robot.send(chunk(np.zeros((16, 7)), ActionSpace.JOINT_VELOCITY))
    finally:
        rig.close()


def test_the_robots_yaml_says_which_spaces_its_arm_can_be_commanded_in() -> None:
    assert ActionSpaces.of(load_robot("sim"), 1.0).known == tuple(ActionSpace)


def way_of_the_expert(seed: int) -> np.ndarray:
    """Targets [steps, 8], one per control step, with which the expert has solved the episode in lock-step."""
    env = TabletopEnv("PickXtimes", seed)
    expert, way = Expert(env), []
    env.arm()
    while not env.outcome.ended:
        if env.step_index % 16 == 0:
            step = env.task.step
        plan = expert.chunk(step)
        env.send(ActionChunk(plan, env.t_ns + CONTROL_DT_NS, CONTROL_DT_NS, 0))
        env.advance(8)
        way.append(plan[:8])
    assert env.outcome.status == "success"
    return np.concatenate([*way, plan[8:]])


@pytest.mark.parametrize("space", [ActionSpace.JOINT_VELOCITY, ActionSpace.CARTESIAN_POSE])
def test_in_real_time_the_task_is_solved_over_the_link_in_other_spaces(space: ActionSpace) -> None:
    """The way that solved it, as velocities or poses, two seconds in chunks that take over from each other each second.

    Chunks are sent long ahead, so that a busy computer does not change what they say.
    """
    seed, horizon, execute = 1, 40, 20
    way = way_of_the_expert(seed)
    node = NodeProcess(PATIENT, ["--seed", str(seed)])
    robot = LinkRobot(node.endpoint, alive=node.alive, connect_ms=60_000)
    try:
        start = robot.observe().proprioception[:7]
        if space is ActionSpace.JOINT_VELOCITY:
            own = np.diff(np.vstack([start, way[:, :7]]), axis=0) / (DT_NS * 1e-9)
        else:
            own = ARM.forward(way[:, :7])
        robot.arm()
        t0_ns = time.monotonic_ns() + 10 * DT_NS
        waiting = threading.Event()
        for first in range(0, len(way), execute):
            rows = slice(first, first + horizon)
            actions = np.column_stack([own[rows], way[rows, 7]])
            robot.send(ActionChunk(actions, t0_ns + first * DT_NS, DT_NS, 1, space))
            waiting.wait(max(0.0, (t0_ns + (first + execute - 10) * DT_NS - time.monotonic_ns()) * 1e-9))
        assert eventually(lambda: robot.outcome.status != "running", 20.0)
        assert robot.outcome.status == "success", robot.outcome.reason
    finally:
        robot.close()
        node.close()
