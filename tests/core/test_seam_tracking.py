"""The seam follows a smooth reference closely, whatever rate it is stepped at."""

from __future__ import annotations

import numpy as np
import pytest

from memrt.runtime._core import Seam, SeamLimits

HOME = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])
MS = 1_000_000


def reference(t_ns: float) -> np.ndarray:
    phase = np.arange(7)
    return HOME + 0.3 * (np.sin(2 * np.pi * 0.4 * t_ns * 1e-9 + phase) - np.sin(phase))


def chunk(t_ns: int, dt_ns: int, horizon: int = 16) -> np.ndarray:
    joints = [reference(t_ns + (i + 1) * dt_ns) for i in range(horizon)]
    return np.column_stack([joints, np.full(horizon, 0.5)])


def follow(step_ns: int, seconds: float = 4.0, dt_ns: int = 50 * MS) -> tuple[np.ndarray, np.ndarray]:
    seam = Seam(SeamLimits.fr3())
    seam.reset(HOME, 1.0, 0)
    times = np.arange(0, int(seconds * 1e9), step_ns)
    commands = []
    for t in times:
        q, _, _ = seam.step(int(t))
        commands.append(q)
        if t % (400 * MS) == 0:
            assert seam.push(chunk(int(t), dt_ns), int(t) + dt_ns, dt_ns) == ""
    assert seam.counters()["plan_failures"] == 0
    return times, np.array(commands)


def test_follows_a_smooth_reference_without_lag() -> None:
    times, commands = follow(MS)
    error = commands - np.array([reference(t) for t in times])
    assert np.sqrt(np.mean(error[times > 1e9] ** 2)) < 3e-3
    lagged = commands - np.array([reference(t - 20 * MS) for t in times])
    assert np.mean(error[times > 1e9] ** 2) < np.mean(lagged[times > 1e9] ** 2)


def test_commands_do_not_depend_on_how_often_they_are_asked_for() -> None:
    fast_times, fast = follow(MS)
    slow_times, slow = follow(50 * MS)
    np.testing.assert_array_equal(fast[np.isin(fast_times, slow_times)], slow)


def test_gripper_holds_each_opening_from_its_time_on() -> None:
    seam = Seam(SeamLimits.fr3())
    seam.reset(HOME, 1.0, 0)
    actions = np.column_stack([np.tile(HOME, (3, 1)), [0.8, 0.0, 0.4]])
    assert seam.push(actions, 100 * MS, 50 * MS) == ""
    openings = [seam.step(t * MS)[2] for t in (99, 100, 149, 150, 199, 200, 900)]
    assert openings == [1.0, 0.8, 0.8, 0.0, 0.0, 0.4, 0.4]


def test_comes_to_rest_on_the_last_waypoint_when_the_future_runs_out() -> None:
    seam = Seam(SeamLimits.fr3())
    seam.reset(HOME, 1.0, 0)
    actions = chunk(0, 50 * MS)
    assert seam.push(actions, 50 * MS, 50 * MS) == ""
    assert seam.remaining_s(300 * MS) == pytest.approx(0.5)
    for t in range(0, 2_000, 50):
        q, dq, _ = seam.step(t * MS)
    np.testing.assert_allclose(q, actions[-1, :7], atol=1e-6)
    np.testing.assert_allclose(dq, 0.0, atol=1e-6)
    assert seam.at_rest()
    assert seam.remaining_s(2_000 * MS) == 0.0
