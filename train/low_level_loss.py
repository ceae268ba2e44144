"""The flow-matching loss of the low level, with and without a chunk's beginning decided already."""

from __future__ import annotations

import torch
from torch import Tensor

from memrt.train.pi05.model import Pi05, Prefix
from memrt.train.pi05.sampling import interpolate, sample_times


def flow_loss(
    model: Pi05,
    prefix: Prefix,
    actions: Tensor,
    weights: Tensor,
    draws: int,
    generator: torch.Generator,
    decided: int = 0,
) -> Tensor:
    """The weighted mean over `draws` flow times and noises per chunk [B, H, d]; `weights` [H, d].

    With `decided`, chunks begin with up to so many clean actions, at flow time 0, and the loss is of the others: the
    robot executes those while the chunk is computed (training-time real-time chunking, SPECS 3).
    """
    t = sample_times((len(actions), draws), generator).to(actions.device)
    noise = torch.randn(len(actions), draws, *actions.shape[1:], generator=generator).to(actions.device)
    actions = actions[:, None].expand_as(noise)
    x, target = interpolate(actions, noise, t)
    rows = model.modulation(t)
    if decided:
        lengths = torch.randint(decided + 1, (len(actions), 1, 1), generator=generator)
        clean = (torch.arange(actions.shape[2]) < lengths).to(actions.device)[..., None]
        x = torch.where(clean, actions, x)
        rows = torch.where(clean[..., None, None], model.modulation(t.new_zeros(())), rows[:, :, None])
        weights = weights * ~clean
    error = (model.velocity(x, rows, prefix) - target).square() * weights
    return error.sum() / weights.expand_as(error).sum()
