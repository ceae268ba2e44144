"""The whole way in real time: the simulator's process renders, its rings keep, the policy looks back and remembers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scripted_vlm import TWO_VIEWS, ScriptedVlm, reply

from memrt.robot_io.link.client import LinkRobot
from memrt.robot_io.process import NodeProcess
from memrt.runtime.clock import NS_PER_S
from memrt.runtime.config import load_policy
from memrt.runtime.loop.realtime import RealtimeLoop
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.policy.high_level import HighLevelPolicy
from memrt.runtime.types import ActionChunk

pytestmark = pytest.mark.real_time

DT_NS = 50_000_000
# Generous deadlines: a busy test machine must not look like a dead client, nor like a dead camera.
PATIENT = Path(__file__).parents[1] / "robot_io" / "patient_sim.yaml"


@dataclass(frozen=True)
class ChunkReply:
    chunk: ActionChunk


class Wave:
    """Turns the hand to and fro, so that the pictures differ."""

    def noise(self, seed, call_index):
        return np.full((16, 8), call_index, np.float32)

    def act(self, observation, subgoal, goal, noise, **_):
        actions = np.tile(observation.proprioception, (16, 1))
        actions[:, 6] += 0.02 * np.arange(1, 17) * (1 if noise[0, 0] % 4 < 2 else -1)
        return ChunkReply(ActionChunk(actions, observation.t_ns + DT_NS, DT_NS, subgoal.revision))


@pytest.fixture
def robot():
    node = NodeProcess(str(PATIENT), ["--seed", "3"])
    made = LinkRobot(node.endpoint, alive=node.alive, connect_ms=60_000)
    yield made
    made.close()
    node.close()


def test_recent_frames_come_out_of_the_rings_and_voted_ones_stay(robot):
    policy = load_policy(TWO_VIEWS)
    vlm = ScriptedVlm(lambda asked: reply("wave", 1))
    high_level = HighLevelPolicy.of(policy, vlm)
    settings = LoopSettings(
        dt_ns=DT_NS,
        horizon=16,
        execute=8,
        every_steps=20,
        cameras=("front", "wrist"),
        subgoal_time_to_live_ns=60 * NS_PER_S,
        camera_stale_ns=10 * NS_PER_S,
        camera_lost_ns=20 * NS_PER_S,
        late_before_hold=1000,
    )
    loop = RealtimeLoop(robot, high_level, Wave(), "wave", settings)
    record = loop.run(8.0)
    assert record.status == "time_over"
    assert len(vlm.asked) >= 4
    assert record.counts["recent frames missing"] == 0
    state = loop.status().memory
    assert len(high_level._images.store) == len(state.votes.held()) > 0
    assert len(vlm.asked[-1].greys) > 8  # keyframes, and eight recent frames
    assert len(vlm.encoded) == len(set(vlm.encoded))
    newest = high_level._images.store[state.votes.held()[-1]]
    assert newest.image().shape == (352, 320, 3)
    assert newest.image().std() > 10  # a picture of the scene
