"""Policies without weights: one that knows the table and feels with its joints, one that goes nowhere."""

from __future__ import annotations

import numpy as np
import pytest

from memrt.runtime._core import Seam, SeamLimits
from memrt.runtime.loop.lockstep import run_lockstep
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.profile.fixed_subgoal import FixedSubgoal
from memrt.runtime.types import Observation, Subgoal
from memrt.sim import fr3
from memrt.sim.env import CONTROL_DT_NS as STEP_NS
from memrt.sim.env import TabletopEnv
from memrt.sim.scripted import SCRIPTED
from memrt.sim.scripted.belief import Belief

SEED = 1_000_003  # two rounds: 171 control steps


def proprioception(belief: Belief, tcp: tuple[float, float, float], opening: float) -> np.ndarray:
    from memrt.sim.kinematics import Kinematics

    q = Kinematics(belief.scene).solve(np.array(fr3.HOME_Q), np.array(tcp), iterations=40)
    return np.append(q, opening)


@pytest.mark.parametrize("name", ["expert", "expert-velocity", "expert-pose"])
def test_the_expert_needs_nothing_but_the_seed_and_its_joints(name: str) -> None:
    scripted = SCRIPTED[name]
    with TabletopEnv("PickXtimes", SEED) as env:
        settings = LoopSettings.from_policy(scripted.bundle.policy, seed=SEED)
        low_level = scripted.open("PickXtimes", SEED)
        record = run_lockstep(env, FixedSubgoal("by script"), low_level, env.goal, settings)
    assert (record.status, record.reason) == ("success", "placed 2 times, then pressed the button")


@pytest.mark.parametrize("task", ["BinFill", "StopCube", "ButtonUnmaskSwap"])
def test_the_expert_knows_the_time_and_what_its_hand_pressed(task: str) -> None:
    scripted = SCRIPTED["expert"]
    with TabletopEnv(task, SEED) as env:
        env.render = lambda camera: np.zeros((256, 256, 3), np.uint8)  # nobody looks
        settings = LoopSettings.from_policy(scripted.bundle.policy, seed=SEED)
        record = run_lockstep(env, FixedSubgoal("by script"), scripted.open(task, SEED), env.goal, settings)
    assert record.status == "success", record.reason


def test_a_thing_follows_the_fingers_from_when_they_have_closed_until_they_open() -> None:
    belief = Belief("PickXtimes", SEED)
    cube = belief.task.step.thing
    x, y, z = belief.scene.position(cube)
    belief.update(proprioception(belief, (0.5, 0.0, 0.2), 1.0), 0)
    belief.update(proprioception(belief, (x, y, z), 0.7), 1 * STEP_NS)
    assert belief.scene.held == "", "the fingers are still wider than the cube"
    belief.update(proprioception(belief, (x, y, z), 0.5), 2 * STEP_NS)
    assert belief.scene.held == cube
    belief.update(proprioception(belief, (0.5, 0.0, 0.15), 0.5), 3 * STEP_NS)
    np.testing.assert_allclose(belief.scene.position(cube), [0.5, 0.0, 0.15], atol=2e-3)
    assert belief.task.step.skill == "place", "the task has seen the lift"
    belief.update(proprioception(belief, (0.5, 0.0, 0.03), 0.9), 4 * STEP_NS)
    assert belief.scene.held == ""
    np.testing.assert_allclose(belief.scene.position(cube), [0.5, 0.0, z], atol=2e-3)


def test_fingers_that_closed_on_nothing_have_moved_nothing() -> None:
    belief = Belief("PickXtimes", SEED)
    cube = belief.task.step.thing
    before = belief.scene.position(cube)
    belief.update(proprioception(belief, tuple(before), 0.5), 0)  # they pass the cube's width on their way
    belief.update(proprioception(belief, tuple(before), 0.0), STEP_NS)
    assert belief.scene.held == ""
    np.testing.assert_allclose(belief.scene.position(cube), before)
    assert belief.task.step.skill == "pick"


@pytest.mark.parametrize("seed", [0, 1])
def test_wander_stays_within_the_seams_limits(seed: int) -> None:
    scripted = SCRIPTED["wander"]
    low_level, low = scripted.open("PickXtimes", seed), scripted.bundle.policy.low_level
    assert (low.control_hz, low.horizon) == (50.0, 50)
    limits = SeamLimits.fr3()
    seam = Seam(limits)
    q = np.array(fr3.HOME_Q)
    seam.reset(q, 1.0, 0)
    moved = np.zeros(7)
    for call in range(20):
        t_ns = call * low.execute * 20_000_000
        observation = Observation(t_ns, np.append(q, 1.0))
        chunk = low_level.act(observation, Subgoal("", 1, t_ns), "", low_level.noise(seed, call)).chunk
        assert chunk.actions.shape == (50, 8)
        assert (chunk.t0_ns, chunk.dt_ns) == (t_ns + 20_000_000, 20_000_000)
        assert np.all((chunk.actions[:, :7] > limits.q_min) & (chunk.actions[:, :7] < limits.q_max))
        assert seam.push(chunk.actions, chunk.t0_ns, chunk.dt_ns) == ""
        for step in range(1, low.execute * 20 + 1):
            q, _, _ = seam.step(t_ns + step * 1_000_000)
        moved = np.maximum(moved, np.abs(q - np.array(fr3.HOME_Q)))
    assert (moved > 0.02).all(), "every joint moves"
