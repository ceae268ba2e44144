"""Real-time chunking's arithmetic: the soft mask, the guidance, and what of the old chunk the new one continues."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.runtime.policy.chunking import Guidance, feasible, guidance_gain, leftover, soft_mask
from memrt.runtime.policy.preprocess import Quantiles, to_absolute, to_delta
from memrt.runtime.types import PlayingChunk

DT = 50_000_000
flow_times = st.floats(0.0, 1.0)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int, int]:
    """(delay, execute, horizon), feasible."""
    horizon = draw(st.integers(2, 64))
    execute = draw(st.integers(0, horizon))
    return draw(st.integers(0, min(execute, horizon - execute))), execute, horizon


def playing(times_ns: list[int] | np.ndarray, actions: np.ndarray, dt_ns: int = DT, delay: int = 0) -> PlayingChunk:
    return PlayingChunk(np.asarray(times_ns, np.int64), actions, dt_ns, delay)


@given(shapes())
def test_the_mask_is_one_before_the_delay_falls_and_is_zero_where_nothing_is_left(shape: tuple[int, int, int]) -> None:
    delay, execute, horizon = shape
    weights = soft_mask(delay, execute, horizon)
    assert weights.shape == (horizon,)
    assert weights.dtype == np.float32
    assert (weights[:delay] == 1.0).all()
    assert (weights[horizon - execute :] == 0.0).all()
    assert (np.diff(weights) <= 0.0).all()
    between = weights[delay : horizon - execute]
    assert ((between > 0.0) & (between < 1.0)).all()


def test_the_mask_is_the_formula() -> None:
    weights = soft_mask(2, 8, 16)
    for i in range(2, 8):
        c = (16 - 8 - i) / (16 - 8 - 2 + 1)
        assert weights[i] == pytest.approx(c * (math.exp(c) - 1) / (math.e - 1), rel=1e-6)


def test_a_delay_beyond_the_leftover_freezes_what_there_is() -> None:
    np.testing.assert_array_equal(soft_mask(9, 12, 16), soft_mask(4, 12, 16))
    assert soft_mask(3, 16, 16).sum() == 0.0


@pytest.mark.parametrize(("shape", "verdict"), [((4, 8, 16), True), ((9, 8, 16), False), ((5, 12, 16), False)])
def test_feasible_delays(shape: tuple[int, int, int], verdict: bool) -> None:
    assert feasible(*shape) is verdict


@given(flow_times, st.floats(0.1, 100.0))
def test_the_gain_is_positive_and_never_above_beta(t: float, beta: float) -> None:
    gain = guidance_gain(t, beta)
    assert 0.0 < gain <= beta
    if 0.0 < t < 1.0 and t * (1.0 - t) > 0.0:
        assert gain == pytest.approx(min(beta, (t**2 + (1 - t) ** 2) / (t * (1 - t))))


def test_the_gain_at_its_ends() -> None:
    assert guidance_gain(1.0, 5.0) == guidance_gain(0.0, 5.0) == guidance_gain(1e-300, 5.0) == 5.0
    assert guidance_gain(0.5, 5.0) == 2.0


@given(seeds, flow_times)
def test_without_weight_nothing_is_pulled(seed: int, t: float) -> None:
    rng = np.random.default_rng(seed)
    velocity, x, target = rng.normal(size=(3, 6, 8)).astype(np.float32)
    plain = velocity.copy()
    Guidance(target, np.zeros(6, np.float32), 5.0).pull(velocity, x, t)
    np.testing.assert_array_equal(velocity, plain)


@given(seeds, flow_times)
def test_the_pull_is_the_formula_on_what_has_a_target_and_on_nothing_else(seed: int, t: float) -> None:
    rng = np.random.default_rng(seed)
    velocity, x = rng.normal(size=(2, 6, 8)).astype(np.float32)
    target, weights = rng.normal(size=(4, 5)).astype(np.float32), soft_mask(1, 2, 6)
    expected = velocity.astype(np.float64)
    estimate = x[:4, :5].astype(np.float64) - t * velocity[:4, :5]
    expected[:4, :5] -= guidance_gain(t, 5.0) * weights[:4, None] * (target - estimate)
    Guidance(target, weights, 5.0).pull(velocity, x, t)
    np.testing.assert_allclose(velocity, expected, atol=1e-4)
    np.testing.assert_array_equal(velocity[4:], expected[4:].astype(np.float32))
    np.testing.assert_array_equal(velocity[:, 5:], expected[:, 5:].astype(np.float32))


@given(seeds, st.integers(2, 20))
def test_a_full_pull_in_the_last_step_reproduces_the_old_chunk(seed: int, steps: int) -> None:
    """The last step ends at x̂ + dt·gw·W·(Y - x̂): with gw = 1/dt that is Y, whatever the network says."""
    rng = np.random.default_rng(seed)
    velocity, x, old = rng.normal(size=(3, 6, 8)).astype(np.float32)
    dt = 1.0 / steps
    natural = (dt**2 + (1 - dt) ** 2) / (dt * (1 - dt))
    weights = np.full(6, steps / natural, np.float32)  # stands for a gain of 1/dt
    Guidance(old, weights, beta=1e9).pull(velocity, x, dt)
    np.testing.assert_allclose(x - dt * velocity, old, atol=1e-5)


@given(seeds)
def test_a_guided_chunk_ends_nearer_to_the_old_one_the_more_weight_it_has(seed: int) -> None:
    """Ten steps of the exact flow towards another chunk, pulled by the soft mask."""
    rng = np.random.default_rng(seed)
    other, old, x = rng.normal(size=(3, 16, 8)).astype(np.float32)
    weights = soft_mask(3, 8, 16)
    guidance = Guidance(old, weights, 5.0)
    for step in range(10):
        t = 1.0 - step / 10
        velocity = (x - other) / np.float32(t)
        guidance.pull(velocity, x, t)
        x = x - velocity / np.float32(10)
    share = np.abs(x - old).sum(1) / np.abs(other - old).sum(1)  # 0: the old chunk, 1: the other one
    assert (share[:3] < 0.55).all()
    assert (np.diff(share[2:9]) > 0.0).all()
    np.testing.assert_allclose(x[8:], other[8:], atol=1e-5)


@given(seeds, st.integers(0, 10**15), st.integers(1, 15))
def test_on_the_old_chunks_own_grid_the_leftover_is_its_actions(seed: int, start_ns: int, executed: int) -> None:
    actions = np.random.default_rng(seed).normal(size=(16, 8))
    times_ns = start_ns + (np.arange(16) + 1) * DT
    found = leftover(playing(times_ns, actions), start_ns + executed * DT, 16)
    np.testing.assert_array_equal(found, actions[executed:])


@given(st.integers(0, 16 * DT), st.floats(0.2, 1.0))
def test_off_the_grid_the_leftover_is_linear_in_between_and_ends_with_the_old_chunk(late_ns: int, speed: float) -> None:
    times_ns, dt_ns = (np.arange(16) + 1) * DT, round(DT / speed)
    ramp = np.linspace(1.0, 2.0, 8) * times_ns[:, None] * 1e-9  # what a linear interpolation must reproduce
    found = leftover(playing(times_ns, ramp, dt_ns), late_ns, 16)
    wanted_ns = late_ns + (np.arange(16) + 1) * dt_ns
    wanted_ns = np.maximum(wanted_ns[wanted_ns <= 16 * DT], DT)
    np.testing.assert_allclose(found, np.linspace(1.0, 2.0, 8) * wanted_ns[:, None] * 1e-9, atol=1e-9)


def test_of_a_chunk_that_has_ended_nothing_is_left() -> None:
    assert leftover(playing([DT, 2 * DT], np.zeros((2, 8))), 2 * DT, 16).shape == (0, 8)


@given(seeds)
def test_re_anchoring_to_another_state_and_back_is_exact(seed: int) -> None:
    """Delta actions of the old state, as absolute targets, as normalised deltas of the new state, and back."""
    rng = np.random.default_rng(seed)
    mask = (True,) * 7 + (False,)
    old_state, new_state = rng.uniform(-2.8, 2.8, (2, 8))
    deltas = rng.normal(size=(16, 8)) * 0.3
    stats = Quantiles.of(deltas)
    absolute = to_absolute(deltas, old_state, mask)
    normalised = stats.normalise(to_delta(absolute, new_state, mask)).astype(np.float32)
    again = to_absolute(stats.unnormalise(normalised), new_state, mask)
    np.testing.assert_allclose(again, absolute, atol=1e-6)
    exact = to_absolute(stats.unnormalise(stats.normalise(to_delta(absolute, new_state, mask))), new_state, mask)
    np.testing.assert_allclose(exact, absolute, atol=1e-12)
