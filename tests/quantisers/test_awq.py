from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from memrt.export.quantisers.awq import channel_scales, smooth_scales
from memrt.export.quantisers.fake import round_activation
from memrt.export.quantisers.packed import SCHEMES, Scheme, pack
from memrt.runtime.errors import MemrtError


def error(weights: list[Tensor], x: Tensor, scale: Tensor, scheme: Scheme, importance: Tensor | None = None) -> float:
    total = 0.0
    for weight in weights:
        packed = pack(weight * scale[:, None], scheme, block=32, importance=importance)
        total += float(((x / scale) @ packed.dequantise() - x @ weight).double().square().sum())
    return total


def group(seed: int, spread: float = 1.0) -> tuple[list[Tensor], Tensor]:
    """Two weights and their input, whose channels differ in size by e^spread."""
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(96, columns, generator=generator) for columns in (24, 40)]
    sizes = torch.exp(spread * torch.randn(96, generator=generator))
    return weights, torch.randn(50, 96, generator=generator) * sizes


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.0, 3.0), st.sampled_from(SCHEMES), st.booleans())
def test_never_worse_than_no_scaling(seed: int, spread: float, scheme: Scheme, weighted: bool) -> None:
    weights, x = group(seed, spread)
    scale = channel_scales(weights, x, scheme, 32, weighted=weighted)
    assert bool((scale > 0).all())

    def with_importance(s: Tensor) -> Tensor | None:
        return (x / s).square().mean(0) if weighted else None

    none = torch.ones(96)
    found = error(weights, x, scale, scheme, with_importance(scale))
    assert found <= error(weights, x, none, scheme, with_importance(none)) * (1 + 1e-4)


def test_it_helps_where_few_channels_carry_the_signal() -> None:
    weights, x = group(0, spread=0.2)
    x[:, :3] *= 30.0
    scale = channel_scales(weights, x, "int4", 32)
    assert error(weights, x, scale, "int4") < 0.6 * error(weights, x, torch.ones(96), "int4")


def test_sampled_columns_and_rows_stand_for_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, x = group(0, spread=0.2)
    x[:, :3] *= 30.0
    whole = channel_scales(weights, x, "int4", 32)
    monkeypatch.setattr("memrt.export.quantisers.awq.SEARCH_ELEMENTS", 96 * 16)
    monkeypatch.setattr("memrt.export.quantisers.awq.CONFIRM_ELEMENTS", 96 * 32)
    monkeypatch.setattr("memrt.export.quantisers.awq.ROWS", 20)
    sampled = channel_scales(weights, x, "int4", 32)
    assert error(weights, x, sampled, "int4") < 0.6 * error(weights, x, torch.ones(96), "int4")
    assert whole.shape == sampled.shape == (96,)


def test_smoothing_lowers_the_error_of_8_bit_activations() -> None:
    weights, x = group(0, spread=0.2)
    x[:, :3] *= 50.0

    def rounded_error(scale: Tensor) -> float:
        smoothed = x / scale
        rounded = round_activation(smoothed, ("s8", float(smoothed.abs().max()) / 127))
        products = [rounded @ pack(w * scale[:, None], "int8").dequantise() - x @ w for w in weights]
        return sum(float(p.square().sum()) for p in products)

    scale = smooth_scales(weights, x.abs().amax(0), 0.5)
    assert rounded_error(scale) < 0.2 * rounded_error(torch.ones(96))


def test_silence_needs_no_scaling_and_wrong_shapes_are_refused() -> None:
    weights, x = group(0)
    assert torch.equal(channel_scales(weights, torch.zeros(4, 96), "int4", 32), torch.ones(96))
    assert torch.equal(smooth_scales(weights, torch.zeros(96), 0.5), torch.ones(96))
    with pytest.raises(MemrtError, match="same in"):
        channel_scales(weights, x[:, :64], "int4", 32)
    with pytest.raises(MemrtError, match="same in"):
        channel_scales([], x, "int4", 32)
    with pytest.raises(MemrtError, match="same in"):
        smooth_scales(weights, torch.ones(64), 0.5)
