"""The same task, done in every action space: what a policy says in joints, in velocities or in poses moves the arm."""

from __future__ import annotations

import numpy as np
import pytest
from expert_in_spaces import run_expert

from memrt.runtime.types import ActionChunk, ActionSpace
from memrt.sim.env import CONTROL_DT_NS, TabletopEnv


@pytest.mark.parametrize("space", ActionSpace)
@pytest.mark.parametrize("seed", [1, 6])
def test_the_expert_solves_the_task_in_every_space(seed: int, space: ActionSpace) -> None:
    env = run_expert(seed, space)
    assert env.outcome.status == "success", env.outcome.reason


def test_velocities_move_the_arm_by_their_integral_whatever_the_arm_lags() -> None:
    env = TabletopEnv("PickXtimes", 0)
    env.arm()
    before = env.proprioception()
    actions = np.zeros((16, 8))
    actions[:, 0], actions[:, 7] = 0.4, 1.0
    for _ in range(5):  # five chunks of which eight steps are executed: 2 s
        env.send(ActionChunk(actions, env.t_ns + CONTROL_DT_NS, CONTROL_DT_NS, 0, ActionSpace.JOINT_VELOCITY))
        env.advance(8)
    actions[:, 0] = 0.0
    env.send(ActionChunk(actions, env.t_ns + CONTROL_DT_NS, CONTROL_DT_NS, 0, ActionSpace.JOINT_VELOCITY))
    env.advance(15)
    assert env.proprioception()[0] - before[0] == pytest.approx(0.4 * 40 * CONTROL_DT_NS * 1e-9, abs=2e-3)


@pytest.mark.parametrize(
    ("space", "reason"),
    [(ActionSpace.CARTESIAN_POSE, "quaternion"), (ActionSpace.JOINT_VELOCITY, "non-finite")],
)
def test_the_simulator_refuses_what_cannot_be_followed_and_goes_on(space: ActionSpace, reason: str) -> None:
    env = TabletopEnv("PickXtimes", 0)
    env.arm()
    wrong = np.full((16, 8), np.nan if reason == "non-finite" else 0.0)
    with pytest.raises(ValueError, match=reason):
        env.send(ActionChunk(wrong, CONTROL_DT_NS, CONTROL_DT_NS, 0, space))
    env.send(ActionChunk(np.zeros((16, 8)), CONTROL_DT_NS, CONTROL_DT_NS, 0, ActionSpace.JOINT_VELOCITY))
    env.advance(4)
    assert env.outcome.status == "running"
