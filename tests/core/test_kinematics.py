"""Forward kinematics against the simulator's model, inverse kinematics against forward."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from memrt.runtime._core import Kinematics, SeamLimits
from memrt.runtime.kinematics import FRANKA_DH, franka_with_hand, tcp_pose
from memrt.sim.scene import Scene
from memrt.sim.tasks import make_task

ARM = franka_with_hand()
LIMITS = SeamLimits.fr3()
HOME = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])
TOLERANCES = (1e-3, 5e-3)


def test_the_tool_is_where_mujoco_says() -> None:
    scene = Scene(make_task("PickXtimes", 0).layout)
    data, random = mujoco.MjData(scene.model), np.random.default_rng(0)
    for q in random.uniform(LIMITS.q_min, LIMITS.q_max, (100, 7)):
        data.qpos[scene.q_index] = q
        mujoco.mj_kinematics(scene.model, data)
        rotation = np.empty(4)
        mujoco.mju_mat2Quat(rotation, data.site_xmat[scene.tcp])
        pose = tcp_pose(ARM, q)
        np.testing.assert_allclose(pose[:3], data.site_xpos[scene.tcp], atol=1e-12)
        assert abs(pose[3:] @ rotation) == pytest.approx(1.0, abs=1e-12)
        assert np.linalg.norm(pose[3:]) == pytest.approx(1.0, abs=1e-12)


def test_from_nearby_every_pose_is_found_again() -> None:
    random, span = np.random.default_rng(1), LIMITS.q_max - LIMITS.q_min
    for q in random.uniform(LIMITS.q_min + 0.05 * span, LIMITS.q_max - 0.05 * span, (500, 7)):
        start = q + random.uniform(-0.2, 0.2, 7)
        found, missing = ARM.follow(ARM.forward(q[None]), start, LIMITS.q_min, LIMITS.q_max, HOME, 0.0, *TOLERANCES)
        assert missing.max() < 1e-6
        np.testing.assert_allclose(ARM.forward(found)[0, :3], ARM.forward(q[None])[0, :3], atol=1e-6)


def test_a_path_ends_with_the_first_pose_that_is_missed() -> None:
    poses = np.repeat(ARM.forward(HOME[None]), 10, axis=0)
    poses[6:, 2] += 3.0
    found, missing = ARM.follow(poses, HOME, LIMITS.q_min, LIMITS.q_max, HOME, 0.0, *TOLERANCES)
    assert len(found) == len(missing) == 7
    assert missing[:6].max() < 1e-6
    assert missing[6, 0] > 1.0
    assert (found >= LIMITS.q_min).all()
    assert (found <= LIMITS.q_max).all()


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"dh: expected float64 \[7, 3\]"):
        Kinematics(np.array(FRANKA_DH)[:6], np.eye(4)[:3])
    with pytest.raises(ValueError, match=r"tool: expected float64 \[3, 4\]"):
        Kinematics(np.array(FRANKA_DH), np.eye(4))
    with pytest.raises(ValueError, match=r"poses: expected float64 \[n, 7\]"):
        ARM.follow(np.zeros((4, 8)), HOME, LIMITS.q_min, LIMITS.q_max, HOME, 0.0, *TOLERANCES)
