"""What a product chooses for itself: SmoothQuant's scales where they spare it an error worth a multiplication."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from memrt.export.graph_parts import Affine
from memrt.export.plan import EnginePlan, Scheme
from memrt.export.streaming.products import Product, ProductSettings

ROWS, IN, OUT = 64, 48, 24


def quantised(scheme: Scheme, outlier: float) -> Product:
    torch.manual_seed(3)
    layer = Affine(nn.Linear(IN, OUT))
    product = Product("up", layer, ProductSettings(EnginePlan(scheme=scheme, compute="fp32", block=16)))
    product.listen()
    x = torch.randn(ROWS, IN)
    x[:, 5] *= outlier
    layer(x)
    product.stop_listening()
    product.quantise()
    return product


@pytest.mark.parametrize("scheme", ["int8", "fp8"])
def test_activations_alike_are_not_smoothed(scheme: Scheme) -> None:
    assert not quantised(scheme, 1.0).smoothed


def test_an_outlier_is_moved_into_the_weights() -> None:
    product = quantised("int8", 60.0)
    assert product.smoothed
    assert product.inverse_smoothing[5] == product.inverse_smoothing.min()
