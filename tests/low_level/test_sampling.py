from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from tiny_pi05 import random_model
from torch import Tensor

from memrt.train.pi05.model import Pi05, Prefix
from memrt.train.pi05.sampling import flow_times, interpolate, sample_actions, sample_times

NOTHING = Prefix([], None, torch.zeros(2, dtype=torch.long))


class ExactFlow:
    """A network that knows the one straight path from any noise to `actions`: v = (x - a) / t."""

    def __init__(self, actions: Tensor) -> None:
        self.config = random_model(300).config
        self.action_in_proj = torch.nn.Linear(1, 1)
        self._actions = actions

    def modulation(self, t: Tensor) -> Tensor:
        return t

    def velocity(self, x: Tensor, rows: Tensor, prefix: Prefix) -> Tensor:
        return (x - self._actions[:, None]) / rows[..., None, None]


def test_the_path_begins_at_the_actions_and_ends_in_noise() -> None:
    actions, noise = torch.randn(3, 6, 8), torch.randn(3, 6, 8)
    for t, expected in ((0.0, actions), (1.0, noise)):
        x, target = interpolate(actions, noise, torch.full((3,), t))
        torch.testing.assert_close(x, expected)
        torch.testing.assert_close(target, noise - actions)


def test_the_target_is_the_derivative_of_the_path() -> None:
    actions, noise = torch.randn(2, 6, 8).double(), torch.randn(2, 6, 8).double()
    early, target = interpolate(actions, noise, torch.full((2,), 0.3, dtype=torch.float64))
    late, _ = interpolate(actions, noise, torch.full((2,), 0.3 + 1e-3, dtype=torch.float64))
    torch.testing.assert_close((late - early) / 1e-3, target, rtol=1e-6, atol=1e-6)


def test_training_times_follow_the_released_distribution() -> None:
    times = sample_times((20_000,), torch.Generator().manual_seed(0))
    assert float(times.min()) >= 0.001
    assert float(times.max()) <= 1.0
    # Beta(1.5, 1): mean 0.6, P(u <= 0.5) = 0.5 ** 1.5.
    assert float(times.mean()) == pytest.approx(0.6 * 0.999 + 0.001, abs=0.01)
    assert float((times <= 0.5005).float().mean()) == pytest.approx(0.5**1.5, abs=0.01)


def test_ten_steps_are_the_released_ones() -> None:
    assert flow_times(10) == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_a_straight_flow_is_integrated_exactly(steps: int) -> None:
    torch.manual_seed(0)
    actions, noise = torch.randn(2, 6, 8), torch.randn(2, 6, 8)
    sampled = sample_actions(cast(Any, ExactFlow(actions)), NOTHING, noise, steps)
    torch.testing.assert_close(sampled, actions, rtol=1e-5, atol=1e-5)


def test_sampling_leaves_the_noise_untouched() -> None:
    model: Pi05 = random_model(300)
    size = model.config.vision.image_size
    tokens = torch.zeros(2, 3, dtype=torch.long)
    noise = torch.randn(2, 6, 8)
    before = noise.clone()
    with torch.no_grad():
        prefix = model.prefix(torch.zeros(2, 1, size, size, 3), tokens, torch.ones_like(tokens, dtype=torch.bool))
    first, again = sample_actions(model, prefix, noise), sample_actions(model, prefix, noise)
    torch.testing.assert_close(noise, before, rtol=0, atol=0)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
