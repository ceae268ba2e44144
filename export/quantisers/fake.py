"""Activations rounded as an engine rounds them, in torch: what quantising a layer costs, measured without an engine."""

from __future__ import annotations

import torch
from torch import Tensor

from memrt.export.quantisers.activations import Activation, ActivationRange, Kind
from memrt.export.quantisers.packed import FP4_MAXIMUM, FP8_MAXIMUM, NVFP4_BLOCK, e2m1_codes
from memrt.runtime.errors import MemrtError

E2M1_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
SMALLEST_BLOCK_SCALE = 2.0**-9  # the smallest e4m3 above zero


def quantise_activation(x: Tensor, seen: ActivationRange, kind: Kind | None, percentile: float = 100.0) -> Tensor:
    """`x` as float32 of the same shape, rounded with the range `seen`; unchanged for None."""
    return x.float() if kind is None else round_activation(x, seen.parameters(kind, percentile))


def round_activation(x: Tensor, activation: Activation) -> Tensor:
    """`x` as float32 of the same shape, as QuantizeLinear and DequantizeLinear with these parameters return it.

    Raises `MemrtError` for nvfp4 if the last axis is no multiple of 16.
    """
    x, scale = x.detach().float(), activation[1]
    if activation[0] == "u8":
        zero = activation[2]
        return (x / scale).round_().add_(zero).clamp_(0, 255).sub_(zero).mul_(scale)
    if activation[0] == "s8":
        return (x / scale).round_().clamp_(-128, 127).mul_(scale)
    if activation[0] == "fp8":
        return _e4m3(x / scale).mul_(scale)
    return _nvfp4(x, scale)


def _e4m3(x: Tensor) -> Tensor:
    return x.clamp(-FP8_MAXIMUM, FP8_MAXIMUM).to(torch.float8_e4m3fn).float()


def _nvfp4(x: Tensor, second: float) -> Tensor:
    if x.shape[-1] % NVFP4_BLOCK:
        raise MemrtError(
            "activation in nvfp4",
            expected=f"a multiple of {NVFP4_BLOCK} channels",
            found=x.shape[-1],
            fix="give the product that reads it another scheme in the plan",
        )
    blocks = x.reshape(-1, NVFP4_BLOCK)
    wanted = blocks.abs().amax(1, keepdim=True) / (FP4_MAXIMUM * second)
    scale = _e4m3(wanted.clamp_min(SMALLEST_BLOCK_SCALE)).mul_(second)
    codes = e2m1_codes(blocks / scale).long()
    values = torch.tensor((*E2M1_VALUES, *(-v for v in E2M1_VALUES)))
    return (values[codes] * scale).reshape(x.shape)
