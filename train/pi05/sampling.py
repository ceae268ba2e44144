"""Flow matching: the training target, and the ten Euler steps that turn noise into an action chunk."""

from __future__ import annotations

import torch
from torch import Tensor

from memrt.train.pi05.model import Pi05, Prefix

# openpi: t ~ Beta(1.5, 1) · 0.999 + 0.001, more weight on noisy chunks, and never exactly clean.
BETA_ALPHA, BETA_BETA = 1.5, 1.0
TIME_SCALE, TIME_OFFSET = 0.999, 0.001


def sample_times(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Flow times for training, float32. Beta(α, 1) is U^(1/α), so a seeded generator is enough."""
    uniform = torch.rand(shape, generator=generator, device=generator.device)
    return uniform ** (1.0 / BETA_ALPHA) * TIME_SCALE + TIME_OFFSET


def interpolate(actions: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """(x_t, target) of chunks [..., H, d] at times [...]: x_t = t·ε + (1 − t)·a, target ε − a."""
    weight = t[..., None, None]
    return weight * noise + (1.0 - weight) * actions, noise - actions


def flow_times(steps: int) -> list[float]:
    """The times at which the network is asked: 1, 1 − 1/n, …, 1/n."""
    return [1.0 - index / steps for index in range(steps)]


@torch.no_grad()
def sample_actions(model: Pi05, prefix: Prefix, noise: Tensor, steps: int | None = None) -> Tensor:
    """Integrate noise [B, H, d] from t = 1 to 0; x is accumulated in float32. Returns normalised actions [B, H, d]."""
    count = steps or model.config.denoise_steps
    x = noise.float()[:, None]
    for t in flow_times(count):
        rows = model.modulation(torch.full((x.shape[0], 1), t, device=x.device))
        velocity = model.velocity(x.to(model.action_in_proj.weight.dtype), rows, prefix)
        x = x - velocity.float() / count
    return x[:, 0]
