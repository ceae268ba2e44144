"""Where the arm is to be at a time: what a chunk that goes on from the plan has to know."""

from __future__ import annotations

import time

import numpy as np
import pytest

from memrt.runtime._core import ControlLoop, Seam, SeamLimits, now_ns

pytestmark = pytest.mark.real_time

MS = 1_000_000
LIMITS = SeamLimits.fr3()
HOME = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])


def ramp(horizon: int = 16, step: float = 0.01) -> np.ndarray:
    return np.column_stack([HOME + step * np.arange(1, horizon + 1)[:, None], np.ones(horizon)])


def test_without_a_chunk_the_plan_is_to_stay() -> None:
    seam = Seam(LIMITS)
    seam.reset(HOME, 1.0, 0)
    for t_ms in (0, 500, 10_000):
        np.testing.assert_array_equal(seam.planned(t_ms * MS), HOME)


def test_the_plan_passes_through_the_pushed_targets_and_rests_on_the_last() -> None:
    seam = Seam(LIMITS)
    seam.reset(HOME, 1.0, 0)
    actions = ramp()
    assert seam.push(actions, 50 * MS, 50 * MS) == ""
    for i, action in enumerate(actions):
        np.testing.assert_allclose(seam.planned((50 + 50 * i) * MS), action[:7], atol=1e-12)
    np.testing.assert_array_equal(seam.planned(5000 * MS), actions[-1, :7])
    between = seam.planned(325 * MS)
    assert (between > actions[5, :7]).all()
    assert (between < actions[6, :7]).all()


def test_a_newer_chunk_replaces_the_plan_from_its_own_time_on() -> None:
    seam = Seam(LIMITS)
    seam.reset(HOME, 1.0, 0)
    seam.push(ramp(), 50 * MS, 50 * MS)
    seam.step(100 * MS)
    before = seam.planned(200 * MS)
    seam.push(ramp(step=-0.01), 300 * MS, 50 * MS)
    np.testing.assert_allclose(seam.planned(200 * MS), before, atol=1e-12)
    np.testing.assert_allclose(seam.planned(300 * MS), HOME - 0.01, atol=1e-12)


def test_after_a_stop_the_plan_is_where_the_command_came_to_rest() -> None:
    seam = Seam(LIMITS)
    seam.reset(HOME, 1.0, 0)
    seam.push(ramp(), 50 * MS, 50 * MS)
    seam.step(300 * MS)
    seam.stop(300 * MS)
    q, _, _ = seam.step(2000 * MS)
    np.testing.assert_array_equal(seam.planned(300 * MS), q)
    np.testing.assert_array_equal(seam.planned(9000 * MS), q)


def eventually(condition) -> bool:
    for _ in range(2000):
        if condition():
            return True
        time.sleep(0.005)
    return False


def test_the_control_loops_plan_is_its_seams() -> None:
    loop = ControlLoop(LIMITS, 500.0)
    loop.start(HOME, 1.0)
    try:
        np.testing.assert_array_equal(loop.planned(now_ns()), HOME)
        actions, t0_ns = ramp(), now_ns() + 50 * MS
        assert loop.push(actions, t0_ns, 50 * MS, 1) == ""
        assert eventually(lambda: loop.stats()["accepted"] == 1)
        for i, action in enumerate(actions):
            np.testing.assert_allclose(loop.planned(t0_ns + 50 * i * MS), action[:7], atol=1e-12)
        assert loop.stop()
        assert eventually(lambda: loop.at_rest)
        np.testing.assert_array_equal(loop.planned(now_ns()), loop.command()[0])
    finally:
        loop.shutdown()
