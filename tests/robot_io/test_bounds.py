"""What of a chunk may be followed: pure, so every rule is tried with many chunks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from memrt.robot_io.action_spaces import RefusedChunkError
from memrt.robot_io.bounds import BENT_IN_A_ROW, ArmBounds
from memrt.robot_io.config import load_robot
from memrt.robot_io.workspace import WorkspaceConfig, tool_position
from memrt.runtime._core import SeamLimits
from memrt.runtime.errors import MemrtError
from memrt.runtime.kinematics import franka_flange, franka_with_hand

LIMITS = SeamLimits.fr3(0.0)
HOME = np.array([0.0, -0.5, 0.0, -2.0, 0.0, 1.5, 0.7])
ARM = franka_with_hand()
DT_NS = 50_000_000
BOX = WorkspaceConfig(min=(0.3, -0.2, 0.1), max=(0.7, 0.2, 0.9))


def chunk(joints: np.ndarray) -> np.ndarray:
    return np.column_stack([joints, np.ones(len(joints))])


def bounds(workspace: WorkspaceConfig | None = BOX) -> ArmBounds:
    return ArmBounds(LIMITS, arm=ARM, workspace=workspace)


@given(arrays(np.float64, (8, 7), elements=st.floats(-1, 1)), arrays(np.float64, 7, elements=st.floats(-1, 1)))
def test_what_is_kept_is_the_chunks_beginning_and_no_target_leads_further_out(steps, start):
    planned = HOME + start
    targets = chunk(planned + np.cumsum(0.2 * steps, axis=0))
    try:
        kept = bounds().kept(targets, DT_NS, planned)
    except RefusedChunkError:
        kept = targets[:0]
    np.testing.assert_array_equal(kept, targets[: len(kept)])
    low = np.minimum(BOX.min, tool_position(ARM, planned[None])[0])
    high = np.maximum(BOX.max, tool_position(ARM, planned[None])[0])
    way = tool_position(ARM, targets[:, :7])
    inside = ((way >= low) & (way <= high)).all(axis=1)
    assert inside[: len(kept)].all()
    assert len(kept) == len(targets) or not inside[len(kept)]


@pytest.mark.parametrize(
    ("change", "count", "words"),
    [
        (lambda q: q[:, 6].fill(3.02), "chunks beyond a joint's range", "joint 7 to leave its range"),
        (lambda q: q[::2, 0].fill(0.2), "chunks faster than the arm", "joint 1 to move faster than it can"),
        (lambda q: np.copyto(q[:, 0], 0.1 * np.arange(16)), "chunks that leave the workspace", "out of the workspace"),
    ],
)
def test_a_bent_chunk_is_counted_and_the_eleventh_in_a_row_is_refused_until_the_robot_is_resumed(change, count, words):
    judge = bounds() if "workspace" in count else bounds(None)
    joints = np.tile(HOME, (16, 1))
    good = chunk(joints)
    change(joints)
    bad = chunk(joints)
    for _ in range(BENT_IN_A_ROW):
        judge.kept(bad, DT_NS, HOME)
    judge.kept(good, DT_NS, HOME)  # one that is not bent starts over
    for _ in range(BENT_IN_A_ROW):
        judge.kept(bad, DT_NS, HOME)
    for _ in range(2):
        with pytest.raises(RefusedChunkError, match=f"{words}, as 10 chunks or more before it"):
            judge.kept(bad, DT_NS, HOME)
    assert judge.counts[count] == 2 * BENT_IN_A_ROW + 2
    judge.begin()
    judge.kept(bad, DT_NS, HOME)


def test_inside_the_margin_and_at_the_speed_limit_nothing_is_wrong():
    joints = np.tile(HOME, (16, 1))
    joints[:, 6] = LIMITS.q_max[6]
    joints[:, 0] = LIMITS.dq_max[0] * 0.05 * np.arange(16) - 1
    judge = bounds(None)
    kept = judge.kept(chunk(joints), DT_NS, HOME)
    assert len(kept) == 16
    assert not judge.counts


def test_numbers_that_are_none_are_left_to_the_seam():
    targets = chunk(np.full((4, 7), np.nan))
    assert bounds().kept(targets, DT_NS, HOME) is targets


def test_the_flange_is_the_hands_length_above_its_fingertips():
    down = np.array([[0.0, -0.0601, 0.0, -2.5094, 0.0, 2.4492, 0.7854]])  # the hand points straight down
    hand, flange = tool_position(ARM, down)[0], tool_position(franka_flange(), down)[0]
    np.testing.assert_allclose(flange - hand, [0, 0, 0.1034], atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ("workspace: {min: [0.2, -0.4, 0.0], max: [0.2, 0.4, 0.8]}", "more than 0.2 in x"),
        ("workspace: {min: [0.6, -0.4, 0.0], max: [0.8, 0.4, 0.8]}", "a box that the home pose lies in"),
        ("workspace: {min: [0.2, -0.4, 0.0], maximum: [0.8, 0.4, 0.8]}", "workspace"),
        (
            "workspace: {min: [-1, -1, -1], max: [1, 1, 1]}\n"
            "arm: {q_min: [-1], q_max: [1], dq_max: [1], ddq_max: [10], dddq_max: [5000]}\nhome: [0]",
            "kinematics memrt knows",
        ),
    ],
)
def test_a_workspace_that_cannot_be_kept_is_refused_in_one_line(tmp_path, changes, words):
    robot = tmp_path / "robot.yaml"
    robot.write_text(f"name: mine\ndriver: sim\ncameras: [front]\n{changes}\n")
    with pytest.raises(MemrtError) as refused:
        load_robot(robot)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
