"""A policy's own action numbers and the chunk's, in both directions: units, gripper, deltas, rotations, pace."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from memrt.runtime.actions_config import ActionsConfig, GripperRange, StateConfig
from memrt.runtime.config import ChunkingConfig, load_policy
from memrt.runtime.errors import MemrtError
from memrt.runtime.kinematics import franka_with_hand
from memrt.runtime.loop.scheduler import pace
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.policy.actions import ActionLayout
from memrt.runtime.policy.low_level import LowLevelInterface
from memrt.runtime.policy.preprocess import NormStats, Quantiles
from memrt.runtime.rotations import from_axis_angle, times, to_axis_angle, unit
from memrt.runtime.types import ActionChunk, ActionSpace, Observation, PlayingChunk
from memrt.train.pi05.config import tiny
from memrt.train.pi05.policy import runtime_model

STATE = np.array([0.1, -0.7, 0.2, -2.3, 0.1, 1.6, 0.8, 0.25])
ROBOMME = GripperRange(closed=-1.0, open=1.0)
DROID = ActionsConfig(space="joint_velocity", scale=3.0, clip=1.0, gripper=GripperRange(closed=1.0, open=0.0))
LIBERO = ActionsConfig(
    space="cartesian_pose",
    relative=True,
    clip=1.0,
    scale=(0.05, 0.05, 0.05, 0.5, 0.5, 0.5),
    gripper=GripperRange(closed=1.0, open=-1.0),
)
DELTA = (True,) * 7 + (False,)

rows = hnp.arrays(np.float64, st.tuples(st.integers(1, 20), st.just(8)), elements=st.floats(-0.99, 0.99))
vectors = hnp.arrays(np.float64, (5, 3), elements=st.floats(-3.0, 3.0))


def test_the_default_changes_no_bit_but_the_grippers_overshoot() -> None:
    own = np.random.default_rng(0).normal(size=(16, 8))
    chunk = ActionLayout(ActionsConfig(), delta_mask=DELTA).chunk(own, STATE)
    np.testing.assert_array_equal(chunk[:, :7], own[:, :7] + STATE[:7])
    np.testing.assert_array_equal(chunk[:, 7], own[:, 7].clip(0.0, 1.0))


@given(rows)
@pytest.mark.parametrize(
    "layout",
    [
        ActionLayout(ActionsConfig(gripper=ROBOMME), StateConfig(gripper=GripperRange(open=0.04)), DELTA),
        ActionLayout(ActionsConfig(gripper=ROBOMME)),
        ActionLayout(ActionsConfig(space="joint_velocity", scale=3.0, gripper=ROBOMME)),
    ],
)
def test_what_is_left_of_a_chunk_is_what_the_policy_would_have_said(layout: ActionLayout, own: np.ndarray) -> None:
    np.testing.assert_allclose(layout.own(layout.chunk(own, STATE), STATE), own, atol=1e-12)


@pytest.mark.parametrize("rotation", ["axis_angle", "quaternion"])
def test_poses_come_back_with_the_sign_they_were_said_with(rotation: str) -> None:
    """A hand that points down is turned by π: there an axis-angle flips its sign, and a quaternion's w changes its."""
    layout = ActionLayout(ActionsConfig(space="cartesian_pose", rotation=rotation, gripper=ROBOMME))
    angles = np.linspace(np.pi - 0.2, np.pi + 0.2, 9)
    turns = np.column_stack([angles, 0.05 * np.ones(9), np.zeros(9)])
    turns = turns if rotation == "axis_angle" else from_axis_angle(turns)
    own = np.column_stack([np.tile([0.5, 0.1, 0.2], (9, 1)), turns, np.linspace(-1, 1, 9)])
    chunk = layout.chunk(own, STATE)
    np.testing.assert_allclose(np.linalg.norm(chunk[:, 3:7], axis=1), 1.0)
    np.testing.assert_allclose(layout.own(chunk, STATE), own, atol=1e-9)
    between = (chunk[1:] + chunk[:-1]) / 2  # as chunking samples it
    np.testing.assert_allclose(layout.own(between, STATE), (own[1:] + own[:-1]) / 2, atol=1e-3)


def test_a_network_without_a_rotation_gives_no_pose() -> None:
    layout = ActionLayout(ActionsConfig(space="cartesian_pose", rotation="quaternion"))
    assert np.isnan(layout.chunk(np.zeros((2, 8)), STATE)[:, 3:7]).all()


def test_droids_numbers_are_clipped_and_then_scaled() -> None:
    own = np.tile([0.5, -2.0, 0, 0, 0, 0, 1.0, 1.0], (4, 1))
    chunk = ActionLayout(DROID).chunk(own, STATE)
    np.testing.assert_allclose(chunk[0], [1.5, -3.0, 0, 0, 0, 0, 3.0, 0.0])


def test_liberos_steps_add_up_from_the_measured_pose() -> None:
    own = np.zeros((4, 7))
    own[:, 0], own[:, 5], own[:, 6] = 0.5, 2.0, -1.0  # 2.5 cm forward, half a radian about the base's z axis
    start = franka_with_hand().forward(STATE[None, :7])[0]
    chunk = ActionLayout(LIBERO).chunk(own, STATE)
    np.testing.assert_allclose(chunk[:, 0], start[0] + 0.025 * np.arange(1, 5))
    np.testing.assert_allclose(chunk[:, 1:3], np.tile(start[1:3], (4, 1)))
    turned = times(from_axis_angle(np.array([0.0, 0.0, 2.0])), start[3:])
    np.testing.assert_allclose(chunk[3, 3:7], turned, atol=1e-12)
    assert (chunk[:, 7] == 1.0).all()
    with pytest.raises(ValueError, match="relative poses"):
        ActionLayout(LIBERO).own(chunk, STATE)


@given(vectors)
def test_axis_angles_and_quaternions_are_one_rotation(turns: np.ndarray) -> None:
    quaternions = from_axis_angle(turns)
    np.testing.assert_allclose(np.linalg.norm(quaternions, axis=-1), 1.0)
    np.testing.assert_allclose(to_axis_angle(quaternions), turns, atol=1e-9)
    back = times(quaternions, quaternions * np.array([1, -1, -1, -1]))
    np.testing.assert_allclose(back, np.tile([1.0, 0, 0, 0], (5, 1)), atol=1e-12)
    np.testing.assert_allclose(unit(3.0 * quaternions), quaternions)


def test_a_slower_run_takes_the_same_path_in_every_space() -> None:
    settings = LoopSettings(dt_ns=50_000_000, horizon=4, execute=4, every_steps=4, speed=0.5)
    actions = np.tile(STATE, (4, 1))
    for space in ActionSpace:
        slow = pace(ActionChunk(actions, 1_050_000_000, 50_000_000, 0, space), 1_000_000_000, settings)
        assert (slow.t0_ns, slow.dt_ns, slow.space) == (1_100_000_000, 100_000_000, space)
        factor = 0.5 if space is ActionSpace.JOINT_VELOCITY else 1.0
        np.testing.assert_array_equal(slow.actions[:, :7], factor * actions[:, :7])
        np.testing.assert_array_equal(slow.actions[:, 7], actions[:, 7])


def interface_of(actions: ActionsConfig, stats: NormStats, kind: str = "prefix") -> LowLevelInterface:
    settings = msgspec.structs.replace(
        load_policy("am_grounded").low_level,
        image_size=32,
        horizon=6,
        execute=3,
        prompt="{subgoal}\n",
        delta_mask=(False,) * actions.dimensions,
        actions=actions,
        chunking=ChunkingConfig(kind=kind),
    )
    return LowLevelInterface(settings, runtime_model(tiny(), bos="<bos>"), None, stats)


def spread(dimensions: int, padding: int = 0) -> Quantiles:
    zeros = np.zeros(padding)
    return Quantiles(np.append(-np.ones(dimensions), zeros), np.append(np.ones(dimensions), zeros))


def test_velocities_that_play_at_half_the_pace_are_continued_at_the_policys_own() -> None:
    interface = interface_of(DROID, NormStats(spread(8), spread(8)))
    played = np.tile([0.75, -0.3, 0, 0, 0, 0, 0, 0.25], (6, 1))
    playing = PlayingChunk(np.arange(6) * 100_000_000, played, 100_000_000, 3)
    clean, _ = interface.continued(playing, Observation(0, STATE))
    own = spread(8).unnormalise(clean)
    np.testing.assert_allclose(own, np.tile([0.5, -0.2, 0, 0, 0, 0, 0, 0.75], (3, 1)), atol=1e-6)


def test_stats_padded_with_zeros_are_cut_and_those_of_another_robot_refused() -> None:
    plain = NormStats(spread(8), spread(7, padding=25))
    chunk = interface_of(LIBERO, plain, "none").chunk(np.zeros((6, 8), np.float32), Observation(0, STATE), 0)
    assert (chunk.space, chunk.actions.shape) == (ActionSpace.CARTESIAN_POSE, (6, 8))
    with pytest.raises(MemrtError, match=r"norm stats of actions: expected 8.*found 14"):
        interface_of(DROID, NormStats(spread(8), spread(14)))


def test_a_state_that_the_prompt_does_not_show_may_be_any() -> None:
    """LIBERO's is a pose and two fingers."""
    assert interface_of(LIBERO, NormStats(spread(9), spread(7)), "none")


def test_the_state_is_shown_in_the_policys_own_gripper_units() -> None:
    layout = ActionLayout(ActionsConfig(), StateConfig(gripper=GripperRange(closed=1.0, open=0.0)))
    np.testing.assert_allclose(layout.state(STATE), np.append(STATE[:7], 0.75))
