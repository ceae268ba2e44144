"""What actions mean on both sides of a policy server: said by the keys, checked at the start and when connecting."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from served import POLICY, STATE, picture, served

from memrt.robot_io.config import PolicyServerConfig
from memrt.robot_io.serve.keys import load_keys
from memrt.robot_io.serve.remote_low_level import RemoteLowLevel
from memrt.runtime.config import PolicyConfig
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import ActionSpace, Frame, Observation, Subgoal


def policy_with(**actions: object) -> PolicyConfig:
    settings = msgspec.structs.replace(load_keys("openpi").actions, **actions)
    low_level = msgspec.structs.replace(POLICY.low_level, actions=settings, delta_mask=(False,) * settings.dimensions)
    return msgspec.structs.replace(POLICY, low_level=low_level)


def remote(port: int, keys: str) -> RemoteLowLevel:
    server = PolicyServerConfig(url=f"ws://127.0.0.1:{port}", keys=keys, timeout_ms=5000.0, connect_ms=5000.0)
    return RemoteLowLevel(server, POLICY.low_level)


def test_velocities_pass_a_droid_server_and_its_client_unchanged() -> None:
    frames = {name: Frame(name, 0, 0, picture()) for name in ("front", "wrist")}
    with served("openpi-droid", policy=policy_with(space="joint_velocity")) as server:
        client = remote(server.port, "openpi-droid")
        assert client.metadata["action_space"] == "joint_velocity"
        chunk = client.act(Observation(0, STATE, frames), Subgoal("lift it", 1, 0), "", client.noise(0, 0)).chunk
        client.close()
    assert chunk.space is ActionSpace.JOINT_VELOCITY
    for column in (0, 4, 5, 6, 7):  # the others of the echo are counters, and beyond what DROID can say
        np.testing.assert_allclose(chunk.actions[:, column], STATE[column])


@pytest.mark.parametrize(
    ("policy", "keys", "told"),
    [
        (POLICY, "openpi-droid", "expected joint_velocity, as .* found joint_position, as the policy"),
        (policy_with(space="joint_velocity"), "openpi", "expected joint_position, as .* found joint_velocity"),
        (policy_with(space="cartesian_pose"), "robomme", "expected joint_position, as .* found cartesian_pose"),
    ],
)
def test_clients_that_expect_other_actions_are_not_served(policy: PolicyConfig, keys: str, told: str) -> None:
    with pytest.raises(MemrtError, match=told), served(keys, policy=policy):
        pass


def test_a_server_that_says_otherwise_than_the_keys_is_not_used() -> None:
    with (
        served("openpi") as server,
        pytest.raises(MemrtError, match=r"expected actions of space joint_velocity.*found 'joint_position'"),
    ):
        remote(server.port, "openpi-droid")
