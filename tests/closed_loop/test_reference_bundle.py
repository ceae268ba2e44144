"""The committed bundle drives the simulator: pixels in, both policies' int8 engines, joint motion out."""

from dataclasses import replace

import pytest

from memrt.runtime.bundle import load_bundle
from memrt.runtime.cli.default_bundle import find_bundle
from memrt.runtime.loop.lockstep import run_lockstep
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.policy.high_level import HighLevelPolicy
from memrt.runtime.policy.low_level import LowLevelPolicy
from memrt.runtime.recording.reader import Recording
from memrt.runtime.recording.recorder import McapRecorder
from memrt.runtime.recording.replay import replay
from memrt.sim.env import TabletopEnv
from memrt.sim.evaluate import compare, evaluate

SEED = 1_000_003
SHORT_TASKS = [1_000_012, 1_000_014, 1_000_016]  # one, one and two repetitions
STEPS = 96  # six high-level calls


@pytest.fixture(scope="module")
def bundle():
    return load_bundle(find_bundle(None, "am_grounded", "int8"))


def drive(bundle, steps=STEPS, observer=None):
    views = []
    policies = HighLevelPolicy(bundle), LowLevelPolicy(bundle)
    settings = LoopSettings.from_policy(bundle.policy, seed=SEED)
    with TabletopEnv("PickXtimes", SEED) as env:
        start = env.proprioception()
        high_level, low_level = policies
        record = run_lockstep(
            env,
            high_level,
            low_level,
            env.goal,
            replace(settings, cap_steps=steps),
            on_step=views.append,
            observer=observer,
        )
        return record, views, env.proprioception() - start, env.task.colour


@pytest.fixture(scope="module")
def first_run(bundle):
    return drive(bundle)


def test_the_arm_moves_towards_a_grounded_subgoal(first_run):
    record, views, moved, colour = first_run
    assert record.steps == STEPS
    assert record.counts["rejected chunks"] == 0
    assert abs(moved[:7]).max() > 0.1
    assert views[0].subgoal.text.startswith(f"pick up the {colour} cube <")


def test_memory_is_carried_from_call_to_call(first_run):
    _, views, _, _ = first_run
    assert all(view.state.subgoal == view.subgoal.text for view in views)
    assert all(view.state.action_memory.endswith(".") for view in views)


def test_the_same_seed_gives_the_same_actions_bit_for_bit(bundle, first_run):
    again, _, _, _ = drive(bundle)
    assert again.actions_sha256 == first_run[0].actions_sha256


def test_a_recorded_run_is_computed_again_bit_for_bit(bundle, tmp_path):
    """From the recording alone, through engines opened anew."""
    with McapRecorder(tmp_path / "run.mcap", {}) as recorder:
        record, _, _, _ = drive(bundle, steps=48, observer=recorder)
    verdict = replay(Recording(tmp_path / "run.mcap"), HighLevelPolicy(bundle), LowLevelPolicy(bundle))
    assert verdict.equal, verdict.first
    assert verdict.stages["high level"].equal == 3
    assert verdict.stages["low level"].equal == record.counts["chunks"] == 6


def test_short_tasks_are_solved_from_pixels_and_memory(bundle):
    """Not a measurement (memrt eval is one): of three tasks with one or two repetitions, two may not fail."""
    report = evaluate(bundle.path, "PickXtimes", SHORT_TASKS)
    assert report["episodes"] == len(SHORT_TASKS)
    assert report["success_rate"] >= 2 / 3
    low, high = report["wilson95"]
    assert 0.0 <= low <= report["success_rate"] <= high <= 1.0
    assert compare(report, report)["difference"] == 0.0
