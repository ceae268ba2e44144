"""The scripted expert as policies of the three action spaces would be: all they know of the arm is what is measured."""

from __future__ import annotations

from memrt.runtime.types import ActionChunk, ActionSpace
from memrt.sim.env import CONTROL_DT_NS, TabletopEnv
from memrt.sim.expert import Expert
from memrt.sim.scripted.expert_policy import said_in


def chunk_of_expert(env: TabletopEnv, expert: Expert, step, space: ActionSpace) -> ActionChunk:
    actions = said_in(space, expert.chunk(step), env.proprioception())
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
