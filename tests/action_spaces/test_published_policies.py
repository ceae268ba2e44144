"""π0.5 of the published policies' kinds, random and tiny, run in lock-step on the simulator."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import torch
import yaml

from memrt.export.checkpoint_export import Request, export_checkpoints
from memrt.runtime.config import LowLevelConfig, load_policy, policy_to_dict
from memrt.runtime.loop.lockstep import run_lockstep
from memrt.runtime.loop.protocols import LowLevel
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.policy.low_level import LowLevelPolicy
from memrt.runtime.types import ActionChunk, ActionSpace
from memrt.sim.env import TabletopEnv
from memrt.train.low_level_tokenizer import BOS, build_tokenizer
from memrt.train.pi05.checkpoint import TOKENIZER, write_checkpoint
from memrt.train.pi05.config import tiny
from memrt.train.pi05.model import Pi05
from memrt.train.pi05.policy import TorchLowLevel
from memrt.train.task_language import corpus

# `random:pi05-tiny`'s sizes; everything else is the published policy's.
TINY = {"image_size": 32, "horizon": 6, "execute": 4, "max_token_len": 48}
STEPS = 24


def norm_stats(reach: float, dimensions: int) -> dict:
    """Of a Franka's joints, and of actions from -reach to reach; those are padded with zeros, as some checkpoints'."""
    mean = {"mean": [0.0] * 8, "std": [0.5] * 8}
    state = {"q01": [-3.0] * 8, "q99": [3.0] * 8}
    padding = [0.0] * (8 - dimensions)
    actions = {"q01": [-reach] * dimensions + padding, "q99": [reach] * dimensions + padding}
    return {"norm_stats": {"state": mean | state, "actions": mean | actions}}


class Watched(TabletopEnv):
    """Keeps what it was sent."""

    def __init__(self, *arguments, **more) -> None:
        super().__init__(*arguments, **more)
        self.sent: list[ActionChunk] = []

    def send(self, chunk: ActionChunk) -> None:
        self.sent.append(chunk)
        super().send(chunk)


def play(low_level: LowLevel, settings: LoopSettings, control_hz: float) -> tuple[Watched, np.ndarray]:
    """A short run without a high level; how far the joints have moved."""
    with Watched("PickXtimes", 0, control_hz=control_hz) as env:
        before = env.proprioception()
        record = run_lockstep(env, None, low_level, env.goal, replace(settings, cap_steps=STEPS))
        assert record.status == "time_over", record.reason
        assert record.counts["rejected chunks"] == 0
        return env, np.abs(env.proprioception() - before)[:7]


def test_an_exported_droid_policy_moves_the_arm_by_joint_velocities_at_15_hz(tmp_path: Path) -> None:
    values = policy_to_dict(load_policy("memer_droid"))
    values |= {"high_level": {"source": "none"}, "memory": {"kind": "none", "subgoal_style": "simple"}}
    values["low_level"] |= TINY | {"weights": "random:pi05-tiny"}
    policy, stats = tmp_path / "policy.yaml", tmp_path / "norm_stats.json"
    policy.write_text(yaml.safe_dump(json.loads(msgspec.json.encode(values))))
    stats.write_text(json.dumps(norm_stats(0.4, 8)))
    request = Request(out=tmp_path / "bundle", policy=policy, norm_stats=stats, samples=2, precision="fp32")
    bundle = export_checkpoints(request)
    low_level = LowLevelPolicy(bundle)
    try:
        env, moved = play(low_level, LoopSettings.from_policy(bundle.policy), 15.0)
    finally:
        low_level.close()
    first = env.sent[0]
    assert len(env.sent) == STEPS // 4
    assert first.space is ActionSpace.JOINT_VELOCITY
    assert first.dt_ns == round(1e9 / 15)
    assert env.t_ns == STEPS * 66_000_000  # whole physics steps
    assert 0.1 < np.abs(first.actions[:, :7]).max() <= 3.0
    assert moved.max() > 0.05


def test_a_libero_policy_moves_the_tool_by_steps(tmp_path: Path) -> None:
    torch.manual_seed(0)
    policy = load_policy("libero")
    settings: LowLevelConfig = msgspec.structs.replace(policy.low_level, **TINY)
    tokenizer = build_tokenizer(corpus())
    model = Pi05(tiny(vocabulary=tokenizer.get_vocab_size()))
    write_checkpoint(tmp_path, model.config, model.state_dict(), bos=BOS, stats=norm_stats(0.03, 7))
    tokenizer.save(str(tmp_path / TOKENIZER))
    loop = LoopSettings.from_policy(msgspec.structs.replace(policy, low_level=settings))
    env, moved = play(TorchLowLevel(tmp_path, settings), loop, 20.0)
    first = env.sent[0]
    assert first.space is ActionSpace.CARTESIAN_POSE
    np.testing.assert_allclose(np.linalg.norm(first.actions[:, 3:7], axis=1), 1.0)
    assert np.abs(np.diff(first.actions[:, :3], axis=0)).max() <= 0.05
    assert moved.max() > 0.005
