"""The orthogonalised update: what it does to singular values, and that it descends."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from memrt.train.muon import ADAMW_RMS, Muon, orthogonalise


@pytest.mark.parametrize("shape", [(3, 16, 48), (2, 48, 16), (1, 20, 20)])
def test_singular_values_come_close_to_one_and_directions_stay(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    result = orthogonalise(matrices)
    values = torch.linalg.svdvals(result)
    assert values.max() < 1.3
    assert values.median() > 0.6
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    assert ((left.mT @ result @ right.mT).diagonal(dim1=-2, dim2=-1) > 0.0).all()


def test_the_scale_of_a_gradient_does_not_matter() -> None:
    matrices = torch.randn(2, 8, 24, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(orthogonalise(matrices), orthogonalise(matrices * 1e3), atol=1e-4, rtol=1e-3)


def test_an_update_has_the_size_of_an_adamw_update() -> None:
    weight = nn.Parameter(torch.zeros(64, 64))
    weight.grad = torch.randn(64, 64, generator=torch.Generator().manual_seed(3))
    Muon([weight], lr=1.0).step()
    assert weight.detach().square().mean().sqrt().item() == pytest.approx(ADAMW_RMS, rel=0.2)


def test_it_fits_a_linear_map() -> None:
    generator = torch.Generator().manual_seed(4)
    wanted, weight = torch.randn(12, 20, generator=generator), nn.Parameter(torch.zeros(12, 20))
    optimiser = Muon([weight], lr=0.1)
    errors = []
    for step in range(400):
        optimiser.param_groups[0]["lr"] = 0.1 * (1.0 - step / 400)
        inputs = torch.randn(64, 20, generator=generator)
        loss = (inputs @ (weight - wanted).T).square().mean()
        weight.grad = None
        loss.backward()
        optimiser.step()
        errors.append(float(loss.detach()))
    assert errors[-1] < 0.01 * errors[0]
