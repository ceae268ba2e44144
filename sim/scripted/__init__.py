"""Policies without weights, for any robot: `memrt run --policy expert`, `memrt run --policy wander`.

They come through the same interfaces as trained ones: observations in, timed action chunks out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from memrt.runtime.actions_config import ActionsConfig
from memrt.runtime.bundle import Bundle
from memrt.runtime.config import LowLevelConfig, MemoryConfig, PolicyConfig
from memrt.runtime.high_level_config import HighLevelConfig
from memrt.runtime.loop.protocols import LowLevel
from memrt.runtime.manifest import Manifest
from memrt.runtime.manifest_schemas import SCHEMA_VERSION

JOINT_POSITIONS = ActionsConfig()


@dataclass(frozen=True, slots=True)
class ScriptedPolicy:
    """`bundle` states its rates as any policy's does, and holds no files. `open` makes it for a task and a seed."""

    bundle: Bundle
    open: Callable[[str, int], LowLevel]


def _expert(task: str, seed: int, actions: ActionsConfig = JOINT_POSITIONS) -> LowLevel:
    from memrt.sim.scripted.expert_policy import ExpertLowLevel

    return ExpertLowLevel(task, seed, actions.action_space)


def _wander(task: str, seed: int) -> LowLevel:
    from memrt.sim.scripted.wander_policy import WanderLowLevel

    return WanderLowLevel(seed)


def _bundle(
    name: str,
    *,
    control_hz: float,
    horizon: int,
    execute: int,
    cameras: tuple[str, ...],
    actions: ActionsConfig = JOINT_POSITIONS,
) -> Bundle:
    low_level = LowLevelConfig(
        weights=name,
        cameras=cameras,
        image_size=1,  # no picture is computed on, no prompt is read
        prompt="{subgoal}",
        max_token_len=1,
        horizon=horizon,
        execute=execute,
        denoise_steps=1,
        control_hz=control_hz,
        delta_mask=(False,) * actions.dimensions,
        lower_case=False,
        actions=actions,
    )
    memory = MemoryConfig(kind="none", subgoal_style="simple")
    policy = PolicyConfig(name=name, memory=memory, high_level=HighLevelConfig(source="oracle"), low_level=low_level)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION, name=name, version=1, policy=policy, precision="fp32", engines={}, files={}
    )
    return Bundle(Path(name), manifest, files={}, sha256="")


def _expert_saying(name: str, actions: ActionsConfig = JOINT_POSITIONS) -> ScriptedPolicy:
    both = ("front", "wrist")
    bundle = _bundle(name, control_hz=20.0, horizon=16, execute=8, cameras=both, actions=actions)
    return ScriptedPolicy(bundle, partial(_expert, actions=actions))


# The expert acts at the rates of the reference policies, in each of the action spaces; wander is a policy at 50 Hz with
# a horizon of a second.
SCRIPTED = {
    "expert": _expert_saying("expert"),
    "expert-velocity": _expert_saying("expert-velocity", ActionsConfig(space="joint_velocity")),
    "expert-pose": _expert_saying("expert-pose", ActionsConfig(space="cartesian_pose", rotation="quaternion")),
    "wander": ScriptedPolicy(_bundle("wander", control_hz=50.0, horizon=50, execute=20, cameras=("front",)), _wander),
}
