"""Chunks of velocities and poses as joint targets: the line, the limits, what is reached, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from memrt.robot_io.action_spaces import (
    POSITION_TOLERANCE,
    ROTATION_TOLERANCE,
    SPEED_SHARE,
    ActionSpaces,
    RefusedChunkError,
)
from memrt.runtime._core import SeamLimits
from memrt.runtime.kinematics import franka_with_hand
from memrt.runtime.types import ActionSpace

LIMITS = SeamLimits.fr3()
HOME = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])
ARM = franka_with_hand()
SPACES = ActionSpaces(LIMITS, arm=ARM, home=HOME)
DT_NS = 50_000_000
DT_S = 0.05
T0_NS = 1_000_000_000
MIDDLE, SPAN = (LIMITS.q_min + LIMITS.q_max) / 2, LIMITS.q_max - LIMITS.q_min

shares = hnp.arrays(np.float64, 7, elements=st.floats(-0.9, 0.9))
nudges = hnp.arrays(np.float64, (16, 7), elements=st.floats(-0.05, 0.05))
velocities = hnp.arrays(np.float64, st.tuples(st.integers(1, 40), st.just(7)), elements=st.floats(-20.0, 20.0))


def targets(own: np.ndarray, space: ActionSpace, start: np.ndarray, spaces: ActionSpaces = SPACES) -> np.ndarray:
    """The joints of the targets; the gripper's column is checked and cut off."""
    gripper = np.linspace(0.0, 1.0, len(own))
    found = spaces.targets(np.column_stack([own, gripper]), space, T0_NS, DT_NS, lambda t_ns: start)
    np.testing.assert_array_equal(found[:, 7], gripper)
    return found[:, :7]


@given(shares, hnp.arrays(np.float64, 7, elements=st.floats(-0.2, 0.2)))
def test_a_constant_velocity_is_a_line_whose_first_step_begins_where_the_plan_is(share, velocity) -> None:
    start = MIDDLE + 0.4 * share * SPAN
    found = targets(np.tile(velocity, (8, 1)), ActionSpace.JOINT_VELOCITY, start)
    np.testing.assert_allclose(found, start + np.outer(np.arange(1, 9) * DT_S, velocity), atol=1e-12)


@given(shares, velocities)
def test_whatever_the_velocities_range_and_speed_are_kept_and_directions_too(share, own) -> None:
    start = MIDDLE + 0.5 * share * SPAN
    found = targets(own, ActionSpace.JOINT_VELOCITY, start)
    assert (found >= LIMITS.q_min).all()
    assert (found <= LIMITS.q_max).all()
    steps = np.diff(np.vstack([start, found]), axis=0)
    assert (np.abs(steps) <= SPEED_SHARE * LIMITS.dq_max * DT_S + 1e-12).all()
    inside = ((found > LIMITS.q_min) & (found < LIMITS.q_max)).all(axis=1)
    wanted = own * DT_S
    shrunk = np.linalg.norm(steps, axis=1) / np.maximum(np.linalg.norm(wanted, axis=1), 1e-300)
    np.testing.assert_allclose(steps[inside], wanted[inside] * shrunk[inside, None], atol=1e-9)


def test_at_the_end_of_a_range_nothing_is_stored_up() -> None:
    start = LIMITS.q_max - 0.01
    there_and_back = np.zeros((12, 7))
    there_and_back[:8, 0], there_and_back[8:, 0] = 1.0, -1.0
    found = targets(there_and_back, ActionSpace.JOINT_VELOCITY, start)
    assert found[7, 0] == LIMITS.q_max[0]
    np.testing.assert_allclose(found[8:, 0], LIMITS.q_max[0] - DT_S * np.arange(1, 5))


def test_a_joint_that_starts_outside_its_range_comes_back_and_goes_no_further() -> None:
    start = HOME.copy()
    start[3] = LIMITS.q_max[3] + 0.015
    outwards, inwards = np.zeros((4, 7)), np.zeros((4, 7))
    outwards[:, 3], inwards[:, 3] = 0.1, -0.1
    assert (targets(outwards, ActionSpace.JOINT_VELOCITY, start)[:, 3] == start[3]).all()
    assert targets(inwards, ActionSpace.JOINT_VELOCITY, start)[-1, 3] == pytest.approx(start[3] - 0.02)


def test_half_the_speed_is_half_the_fastest_velocity() -> None:
    fast = np.zeros((1, 7))
    fast[0, 0] = 100.0
    slow = ActionSpaces(LIMITS, speed=0.5)
    step = targets(fast, ActionSpace.JOINT_VELOCITY, HOME, slow)[0, 0] - HOME[0]
    assert step == pytest.approx(0.5 * SPEED_SHARE * LIMITS.dq_max[0] * DT_S)


@settings(deadline=None)
@given(shares, nudges)
def test_poses_of_a_path_are_reached_inside_the_range(share, path) -> None:
    start = MIDDLE + 0.45 * share * SPAN
    walked = np.clip(start + np.cumsum(path, axis=0), LIMITS.q_min + 0.05 * SPAN, LIMITS.q_max - 0.05 * SPAN)
    poses = ARM.forward(walked)
    found = targets(poses, ActionSpace.CARTESIAN_POSE, start)
    assert (found >= LIMITS.q_min).all()
    assert (found <= LIMITS.q_max).all()
    reached = ARM.forward(found)
    assert np.linalg.norm(reached[:, :3] - poses[:, :3], axis=1).max() <= POSITION_TOLERANCE
    halves = np.abs((reached[:, 3:] * poses[:, 3:]).sum(axis=1)).clip(0.0, 1.0)
    assert 2.0 * np.arccos(halves).max() <= ROTATION_TOLERANCE + 1e-6


def test_both_signs_of_a_quaternion_are_one_rotation() -> None:
    poses = ARM.forward(HOME + np.linspace(0.0, 0.1, 16)[:, None])
    flipped = poses * np.array([1, 1, 1, -1, -1, -1, -1])
    found = [targets(p, ActionSpace.CARTESIAN_POSE, HOME) for p in (poses, flipped)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-9)


def test_a_hand_that_stands_still_lets_its_elbow_come_home() -> None:
    away = HOME.copy()
    away[0], away[2] = 0.6, -0.55
    pose = ARM.forward(away[None])
    q = away
    for _ in range(20):
        q = targets(np.repeat(pose, 16, 0), ActionSpace.CARTESIAN_POSE, q)[-1]
    assert np.abs(q[[0, 2]] - HOME[[0, 2]]).max() < 0.75 * np.abs(away[[0, 2]] - HOME[[0, 2]]).max()
    np.testing.assert_allclose(ARM.forward(q[None])[0, :3], pose[0, :3], atol=1e-5)


def poses_with(column: int, value: float) -> np.ndarray:
    poses = np.repeat(ARM.forward(HOME[None]), 16, axis=0)
    poses[5, column] = value
    return poses


@pytest.mark.parametrize(
    ("own", "space", "reason"),
    [
        (np.full((4, 7), np.nan), ActionSpace.JOINT_VELOCITY, "non-finite"),
        (np.full((4, 7), np.inf), ActionSpace.JOINT_VELOCITY, "non-finite"),
        (np.empty((0, 7)), ActionSpace.JOINT_VELOCITY, "empty"),
        (np.empty((0, 7)), ActionSpace.CARTESIAN_POSE, "empty"),
        (np.zeros((4, 6)), ActionSpace.JOINT_VELOCITY, r"shape \[4, 7\] instead of \[horizon, 8\]"),
        (poses_with(0, np.nan), ActionSpace.CARTESIAN_POSE, "non-finite"),
        (poses_with(3, 0.5), ActionSpace.CARTESIAN_POSE, "pose 5 has a quaternion of length"),
        (np.zeros((4, 7)), ActionSpace.CARTESIAN_POSE, "pose 0 has a quaternion of length 0 instead of 1"),
        (poses_with(0, 2.0), ActionSpace.CARTESIAN_POSE, r"pose 5 is out of reach: [\d.]+ mm and [\d.]+° remain"),
    ],
)
def test_what_cannot_be_followed_is_refused_whole_with_the_reason(own, space, reason) -> None:
    with pytest.raises(RefusedChunkError, match=reason):
        targets(own, space, HOME)


anything = hnp.arrays(np.float64, st.tuples(st.integers(0, 5), st.integers(7, 9)), elements=st.floats())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(anything, st.sampled_from([ActionSpace.JOINT_VELOCITY, ActionSpace.CARTESIAN_POSE]))
def test_whatever_comes_in_becomes_targets_inside_the_range_or_is_refused(actions, space) -> None:
    try:
        found = SPACES.targets(actions, space, T0_NS, DT_NS, lambda t_ns: HOME)
    except RefusedChunkError:
        return
    assert (found[:, :7] >= LIMITS.q_min).all()
    assert (found[:, :7] <= LIMITS.q_max).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("far", [1e6, 1e155, 1e300])
def test_a_pose_beyond_all_numbers_is_out_of_reach(far: float) -> None:
    with pytest.raises(RefusedChunkError, match="pose 5 is out of reach"):
        targets(poses_with(0, far), ActionSpace.CARTESIAN_POSE, HOME)


def test_poses_need_known_kinematics() -> None:
    joints_only = ActionSpaces(LIMITS)
    assert joints_only.known == (ActionSpace.JOINT_POSITION, ActionSpace.JOINT_VELOCITY)
    assert SPACES.known == tuple(ActionSpace)
    with pytest.raises(RefusedChunkError, match="kinematics"):
        targets(ARM.forward(HOME[None]), ActionSpace.CARTESIAN_POSE, HOME, joints_only)


def test_joint_positions_pass_through_untouched_and_unasked() -> None:
    actions = np.full((3, 8), 99.0)

    def planned(t_ns: int) -> np.ndarray:
        raise AssertionError("joint positions do not depend on the plan")

    assert SPACES.targets(actions, ActionSpace.JOINT_POSITION, T0_NS, DT_NS, planned) is actions


@given(st.integers(-(2**62), 2**62), st.integers(1_000_000, 1_000_000_000))
def test_the_plan_is_asked_for_one_step_before_the_first_action(t0_ns, dt_ns) -> None:
    asked = []

    def planned(t_ns: int) -> np.ndarray:
        asked.append(t_ns)
        return HOME

    SPACES.targets(np.zeros((2, 8)), ActionSpace.JOINT_VELOCITY, t0_ns, dt_ns, planned)
    assert asked == [t0_ns - dt_ns]
