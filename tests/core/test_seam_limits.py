"""Whatever is pushed and whenever, every command respects position, speed, acceleration and jerk limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memrt.runtime._core import Seam, SeamLimits

MS = 1_000_000
LIMITS = SeamLimits.fr3()
HOME = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])
RANGE_TOLERANCE = 1e-6  # rad: rounding where a joint starts exactly on its limit


def assert_within_limits(commands: np.ndarray, step_s: float, speed: float) -> None:
    """Differences bound derivatives: the n-th difference over step^n is a mean of the n-th derivative."""
    assert (commands >= LIMITS.q_min - RANGE_TOLERANCE).all()
    assert (commands <= LIMITS.q_max + RANGE_TOLERANCE).all()
    for order, limit in ((1, LIMITS.dq_max * speed), (2, LIMITS.ddq_max), (3, LIMITS.dddq_max)):
        assert (np.abs(np.diff(commands, order, axis=0)) / step_s**order <= limit).all(), f"derivative {order}"


def chunk(kind: str, horizon: int, q: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if kind == "anywhere":
        joints = rng.uniform(LIMITS.q_min - 0.15, LIMITS.q_max + 0.15, (horizon, 7))
    elif kind == "wander":
        joints = q + np.cumsum(rng.normal(0.0, 0.03, (horizon, 7)), axis=0)
    elif kind == "corner":
        joints = np.tile(np.where(rng.random(7) < 0.5, LIMITS.q_min, LIMITS.q_max), (horizon, 1))
    else:
        joints = q + rng.uniform(-1.0, 1.0, 7) * np.linspace(0.0, 1.0, horizon)[:, None]
    return np.column_stack([np.clip(joints, LIMITS.q_min - 0.19, LIMITS.q_max + 0.19), rng.random(horizon)])


ops = st.lists(
    st.tuples(
        st.sampled_from(["anywhere", "wander", "corner", "line", "stop", "resume", "wait"]),
        st.integers(1, 30),  # horizon
        st.sampled_from([10, 20, 33, 50]),  # time step [ms]
        st.integers(-250, 250),  # chunk begins this long after now [ms]
        st.integers(1, 400),  # ticks afterwards
    ),
    min_size=1,
    max_size=7,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    operations=ops,
    start=st.sampled_from(["home", "low", "high"]),
    speed=st.sampled_from([1.0, 0.3, 0.05]),
    seed=st.integers(0, 2**16),
)
def test_limits_hold_for_every_command(
    operations: list[tuple[str, int, int, int, int]], start: str, speed: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    seam = Seam(LIMITS, speed=speed)
    q = {"home": HOME, "low": LIMITS.q_min, "high": LIMITS.q_max}[start]
    seam.reset(q, 1.0, 0)
    commands, t = [], 0
    for name, horizon, dt, offset, ticks in operations:
        if name == "stop":
            seam.stop(t)
        elif name == "resume":
            seam.resume()
        elif name != "wait":
            seam.push(chunk(name, horizon, q, rng), t + offset * MS, dt * MS)
        for _ in range(ticks):
            q, _, gripper = seam.step(t)
            assert 0.0 <= gripper <= 1.0
            commands.append(q)
            t += MS
    assert_within_limits(np.array(commands), 1e-3, speed)
    assert seam.counters()["plan_failures"] == 0


@settings(max_examples=25, deadline=None, derandomize=True)
@given(cut=st.integers(0, 1500), seed=st.integers(0, 2**16))
def test_stop_at_any_time_comes_to_rest_and_holds(cut: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    seam = Seam(LIMITS)
    seam.reset(HOME, 1.0, 0)
    assert seam.push(chunk("anywhere", 30, HOME, rng), 50 * MS, 50 * MS) == ""
    commands = [seam.step(t * MS)[0] for t in range(cut + 1)]
    seam.stop(cut * MS)
    assert seam.remaining_s(cut * MS) == 0.0
    assert seam.push(chunk("line", 16, HOME, rng), cut * MS, 50 * MS) == "stopped"
    # From the fastest speed of the FR3, 5.26 rad/s, braking at 10 rad/s² takes 0.53 s.
    commands += [seam.step((cut + t) * MS)[0] for t in range(1, 600)]
    assert seam.at_rest()
    held = np.array([seam.step((cut + t) * MS)[0] for t in range(600, 700)])
    np.testing.assert_allclose(held, np.broadcast_to(held[0], held.shape), atol=1e-9)
    assert_within_limits(np.array(commands), 1e-3, 1.0)


def test_after_resume_the_arm_stays_until_a_chunk_comes() -> None:
    seam = Seam(LIMITS)
    seam.reset(HOME, 1.0, 0)
    target = np.column_stack([np.tile(HOME + 0.2, (10, 1)), np.zeros(10)])
    assert seam.push(target, 50 * MS, 50 * MS) == ""
    for t in range(120):
        seam.step(t * MS)
    seam.stop(120 * MS)
    for t in range(120, 800):
        stopped_at, _, _ = seam.step(t * MS)
    seam.resume()
    for t in range(800, 1000):
        q, _, _ = seam.step(t * MS)
    np.testing.assert_allclose(q, stopped_at, atol=1e-9)
    assert np.abs(stopped_at - (HOME + 0.2)).max() > 1e-3, "the stop came too late to tell"
    assert seam.push(target, 1000 * MS, 50 * MS) == ""
    for t in range(1000, 2500):
        q, _, _ = seam.step(t * MS)
    np.testing.assert_allclose(q, HOME + 0.2, atol=1e-6)


def test_a_joint_that_starts_outside_its_range_may_only_come_back() -> None:
    seam = Seam(LIMITS)
    outside = HOME.copy()
    outside[3] = LIMITS.q_max[3] + 0.05
    seam.reset(outside, 1.0, 0)
    further = outside.copy()
    further[3] += 0.1
    assert seam.push(np.column_stack([np.tile(further, (16, 1)), np.ones(16)]), 50 * MS, 50 * MS) == ""
    positions = [seam.step(t * MS)[0][3] for t in range(1200)]
    assert max(positions) <= outside[3] + RANGE_TOLERANCE
    assert seam.push(np.column_stack([np.tile(HOME, (16, 1)), np.ones(16)]), 1250 * MS, 50 * MS) == ""
    positions = [seam.step(t * MS)[0][3] for t in range(1200, 4500)]
    assert positions[-1] == pytest.approx(HOME[3], abs=1e-6)


def test_a_gap_between_steps_brings_the_arm_to_rest() -> None:
    seam = Seam(LIMITS)
    seam.reset(HOME, 1.0, 0)
    line = np.column_stack([HOME + np.linspace(0.0, 1.0, 100)[:, None], np.ones(100)])
    assert seam.push(line, 50 * MS, 50 * MS) == ""
    for t in range(500):
        seam.step(t * MS)
    q, dq, _ = seam.step(4_000 * MS)
    assert seam.counters()["gaps"] == 1
    np.testing.assert_allclose(dq, 0.0, atol=1e-9)
    after = [seam.step((4_000 + t) * MS)[0] for t in range(1, 50)]
    assert_within_limits(np.array([q, *after]), 1e-3, 1.0)
