"""What a product chooses for itself: SmoothQuant's scales where they spare it an error worth a multiplication."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from memrt.export.graph_parts import Affine
from memrt.export.plan import EnginePlan, Scheme
from memrt.export.streaming import products
from memrt.export.streaming.products import Product, ProductSettings

ROWS, IN, OUT = 64, 48, 24


def quantised(scheme: Scheme, x: torch.Tensor, layer: Affine) -> Product:
    product = Product("up", layer, ProductSettings(EnginePlan(scheme=scheme, compute="fp32", block=16)))
    product.listen()
    layer(x)
    product.stop_listening()
    product.quantise()
    return product


@pytest.mark.parametrize("scheme", ["int8", "fp8"])
def test_channels_alike_are_not_smoothed(scheme: Scheme) -> None:
    torch.manual_seed(3)
    linear = nn.Linear(IN, OUT)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(OUT, IN).sign() / 8)
    assert not quantised(scheme, torch.randn(ROWS, IN).sign(), Affine(linear)).smoothed


def test_what_gains_too_little_is_not_smoothed(monkeypatch) -> None:
    torch.manual_seed(3)
    layer, x = Affine(nn.Linear(IN, OUT)), torch.randn(ROWS, IN)
    assert quantised("int8", x, layer).smoothed
    monkeypatch.setattr(products, "SMOOTHING_GAIN", 0.5)
    assert not quantised("int8", x, Affine(nn.Linear(IN, OUT))).smoothed


def test_an_outlier_is_moved_into_the_weights() -> None:
    torch.manual_seed(3)
    layer, x = Affine(nn.Linear(IN, OUT)), torch.randn(ROWS, IN)
    x[:, 5] *= 60.0
    product = quantised("int8", x, layer)
    assert product.smoothed
    assert product.inverse_smoothing[5] == product.inverse_smoothing.min()
