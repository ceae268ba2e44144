"""The scripted expert as policies of the three action spaces would be: all they know of the arm is what is measured."""

from __future__ import annotations

import numpy as np

from memrt.runtime.kinematics import franka_with_hand
from memrt.runtime.types import ActionChunk, ActionSpace
from memrt.sim.env import CONTROL_DT_NS, TabletopEnv
from memrt.sim.expert import Expert

ARM = franka_with_hand()
CONTROL_DT_S = CONTROL_DT_NS * 1e-9


def in_space(targets: np.ndarray, measured: np.ndarray, space: ActionSpace) -> np.ndarray:
    """The expert's joint targets [horizon, 8] in the numbers of another space."""
    if space is ActionSpace.JOINT_POSITION:
        return targets
    if space is ActionSpace.JOINT_VELOCITY:
        own = np.diff(np.vstack([measured[:7], targets[:, :7]]), axis=0) / CONTROL_DT_S
    else:
        own = ARM.forward(targets[:, :7])
    return np.column_stack([own, targets[:, 7]])


def chunk_of_expert(env: TabletopEnv, expert: Expert, step, space: ActionSpace) -> ActionChunk:
    actions = in_space(expert.chunk(step), env.proprioception(), space)
    return ActionChunk(actions, env.t_ns + CONTROL_DT_NS, CONTROL_DT_NS, 0, space)


def run_expert(seed: int, space: ActionSpace) -> TabletopEnv:
    """One episode in lock-step, a chunk of 16 every 8 steps, the oracle's step every 16."""
    env = TabletopEnv("PickXtimes", seed)
    expert = Expert(env)
    env.arm()
    while not env.outcome.ended:
        if env.step_index % 16 == 0:
            step = env.task.step
        env.send(chunk_of_expert(env, expert, step, space))
        env.advance(8)
    return env
