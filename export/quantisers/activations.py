"""Ranges of activations, gathered while calibration samples stream through a network one layer at a time.

Unlike `memrt.calib.ranges`, which runs a whole graph twice, this sees every value once: a histogram of fixed size
doubles its range whenever a value falls outside.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from memrt.export.quantisers.packed import FP4_MAXIMUM, FP8_MAXIMUM, TORCH_TYPES, Compute
from memrt.runtime.errors import MemrtError

Kind = Literal["u8", "s8", "fp8", "nvfp4"]
# ("u8", scale, zero point), ("s8", scale), ("fp8", scale), ("nvfp4", scale of the whole tensor: amax / (6 · 448))
Activation = tuple[Literal["u8"], float, int] | tuple[Literal["s8", "fp8", "nvfp4"], float]

HALF_BINS = 2048  # on each side of zero; at least half of them lie inside the range that was seen
# torch counts in float32, exact up to 2^24 values per call.
COUNT_AT_ONCE = 1 << 23
SMALLEST_SCALE = 2.0**-20  # of a tensor that was zero throughout; fp16 holds it too


class ActivationRange:
    """Lowest and highest value of a tensor over all samples, 0 included; with a histogram if percentiles are wanted."""

    def __init__(self, *, histogram: bool = False) -> None:
        self.low = 0.0
        self.high = 0.0
        self._counts = torch.zeros(2 * HALF_BINS, dtype=torch.float64) if histogram else None
        self._reach = 0.0

    @property
    def amax(self) -> float:
        """Largest magnitude."""
        return max(-self.low, self.high)

    def update(self, x: Tensor) -> None:
        """Count the values of one sample's tensor. Raises `MemrtError` if one is not finite."""
        if x.numel() == 0:
            return
        x = x.detach().float()
        low, high = (float(v) for v in torch.aminmax(x))
        if not (abs(low) < float("inf") and abs(high) < float("inf")):
            raise MemrtError(
                "an activation is not finite on a calibration sample",
                expected="finite values",
                found=f"minimum {low}, maximum {high}",
                fix="check the weights and the calibration set, or compute in bf16 or fp32",
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        if self._counts is not None and self.amax > 0.0:
            self._widen()
            for part in torch.split(x.reshape(-1), COUNT_AT_ONCE):
                self._counts += torch.histc(part, 2 * HALF_BINS, -self._reach, self._reach).double()

    def interval(self, percentile: float = 100.0) -> tuple[float, float]:
        """(low, high) with 0 inside, holding `percentile` percent of all values on each side; 100: all of them.

        Raises `MemrtError` when a percentile is asked of a range without a histogram, or is outside 50..100.
        """
        if percentile == 100.0 or self.amax == 0.0:
            return self.low, self.high
        if self._counts is None or not 50.0 < percentile < 100.0:
            raise MemrtError(
                "percentile of an activation range",
                expected="50 < p <= 100, and a range with histogram=True below 100",
                found=f"{percentile}, {'no ' if self._counts is None else 'a '}histogram",
                fix="use 100, or gather the range with a histogram",
            )
        cumulative = self._counts.cumsum(0)
        total = float(cumulative[-1])
        outside = (100.0 - percentile) / 100.0 * total
        first = int(torch.searchsorted(cumulative, outside, right=True))
        last = int(torch.searchsorted(cumulative, total - outside))
        width = self._reach / HALF_BINS
        low, high = (first - HALF_BINS) * width, (last + 1 - HALF_BINS) * width
        return max(self.low, min(0.0, low)), min(self.high, max(0.0, high))

    def parameters(self, kind: Kind, percentile: float = 100.0, compute: Compute = "fp32") -> Activation:
        """What a quantiser of `kind` needs to know of this range, with the scale as a graph in `compute` stores it.

        `u8` is asymmetric (ONNX Runtime's CPU kernels), `s8` and `fp8` symmetric (TensorRT); `nvfp4` finds its block
        scales as values come, relative to one scale of the whole tensor.
        """
        low, high = self.interval(percentile)
        if kind == "u8":
            scale = _stored((high - low) / 255.0, compute)
            return "u8", scale, min(255, max(0, round(-low / scale)))
        largest = {"s8": 127.0, "fp8": FP8_MAXIMUM, "nvfp4": FP8_MAXIMUM * FP4_MAXIMUM}[kind]
        # The scale of a whole fp4 tensor stays fp32: it would be too small for 16 bits.
        return kind, _stored(max(-low, high) / largest, "fp32" if kind == "nvfp4" else compute)

    def _widen(self) -> None:
        """Double the histogram's range, by merging bins in pairs, until it holds the largest magnitude."""
        assert self._counts is not None
        self._reach = self._reach or self.amax
        while self._reach < self.amax:
            merged = torch.zeros_like(self._counts)
            merged[HALF_BINS // 2 : -HALF_BINS // 2] = self._counts.view(-1, 2).sum(1)
            self._counts, self._reach = merged, 2.0 * self._reach


def _stored(scale: float, compute: Compute) -> float:
    return float(torch.tensor(max(scale, SMALLEST_SCALE)).to(TORCH_TYPES[compute]))
