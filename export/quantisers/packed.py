"""Weights in few bits, as DequantizeLinear reads them: int8, int4, fp8 and nvfp4.

A weight lies as [in, out], the second operand of `x @ weight`. All schemes are symmetric, so that zero stays exact and
TensorRT takes them:

- `int8`: codes −127..127, one scale per output channel; 7 bits (−64..63) with `reduce_range`.
- `int4`: codes −8..7, one scale per `block` input channels and output channel. The scale is searched: clipping the
  largest weight of a block a little often costs less than the coarser steps that it would force on the others.
- `fp8`: e4m3, one scale per output channel (largest magnitude / 448).
- `nvfp4`: e2m1 in blocks of 16 input channels with one e4m3 scale each, and one fp32 scale for the whole weight
  (the two-level format of NVIDIA's Blackwell tensor cores).

Everything runs over slices of the weight, so that temporary memory stays a few megabytes whatever the weight's size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memrt.runtime.errors import MemrtError

Scheme = Literal["int8", "int4", "fp8", "nvfp4"]
Compute = Literal["fp32", "fp16", "bf16"]

SCHEMES: tuple[Scheme, ...] = ("int8", "int4", "fp8", "nvfp4")
INT4_BLOCKS = (128, 64, 32, 16)
NVFP4_BLOCK = 16
FP8_MAXIMUM = 448.0  # largest finite e4m3fn
FP4_MAXIMUM = 6.0  # largest e2m1
# Share of a block's largest magnitude that code 7 stands for. 7/8 lets code −8 stand for the largest magnitude itself.
CLIPPING_RATIOS = (1.0, 0.95, 0.9, 0.875, 0.84, 0.8, 0.75, 0.7)
# Elements per slice: its few temporaries stay inside a core's second-level cache.
SLICE = 1 << 17

TORCH_TYPES: dict[Compute, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
# Below these a scale is not stored: fp16 would keep too few of its bits, and an all-zero channel needs some scale.
SMALLEST_SCALES: dict[Compute, float] = {"fp32": 2.0**-126, "fp16": 2.0**-20, "bf16": 2.0**-126}
NUMPY_TYPES: dict[Compute, Any] = {"fp32": np.dtype("<f4"), "fp16": np.dtype("<f2"), "bf16": ml_dtypes.bfloat16}


@dataclass(frozen=True, slots=True, eq=False)
class PackedWeight:
    """One weight [in, out] as it is stored: what DequantizeLinear reads.

    `values` holds codes in the logical shape [in, out]: int8 for int8 and int4, ml_dtypes' float8_e4m3fn for fp8 and
    float4_e2m1fn for nvfp4. `scale` is float32 [out] (int8, fp8) or [in / block, out] (int4), every element exactly
    representable in `scale_type`; for nvfp4 float8_e4m3fn [in / 16, out], times the fp32 `second_scale`. `block` counts
    input channels per scale, 0: one scale per output channel. `scale_type` is the type that scales are stored in and
    that the engine multiplies in.
    """

    scheme: Scheme
    values: NDArray[Any]
    scale: NDArray[Any]
    second_scale: float | None
    block: int
    scale_type: Compute = "fp32"

    def dequantise(self) -> Tensor:
        """Float32 [in, out]: exactly what the engine computes from the stored bytes."""
        rows, columns = self.values.shape
        weight = torch.empty(rows, columns)
        scale = torch.from_numpy(self.scale.astype(np.float32))
        if self.second_scale is not None:
            scale = scale * self.second_scale
        step = max(1, SLICE // columns)
        if self.block:
            step = max(self.block, step // self.block * self.block)
        for start in range(0, rows, step):
            codes = torch.from_numpy(self.values[start : start + step].astype(np.float32))
            factor = scale
            if self.block:
                factor = scale[start // self.block : (start + step) // self.block].repeat_interleave(self.block, dim=0)
            weight[start : start + step] = (codes * factor).to(TORCH_TYPES[self.scale_type])
        return weight

    def to_bytes(self) -> bytes:
        """Raw data of an ONNX tensor with `values`, little-endian; int4 and nvfp4 two per byte, low nibble first."""
        codes = np.ascontiguousarray(self.values)
        if self.scheme not in ("int4", "nvfp4"):
            return bytes(codes.tobytes())
        nibbles = codes.view(np.uint8).reshape(-1) & 0x0F
        if nibbles.size % 2:
            nibbles = np.pad(nibbles, (0, 1))
        return bytes((nibbles[0::2] | (nibbles[1::2] << 4)).tobytes())

    def scale_bytes(self) -> bytes:
        """Raw data of an ONNX tensor with `scale`: e4m3 for nvfp4, else in `scale_type`."""
        stored = self.scale if self.scheme == "nvfp4" else self.scale.astype(NUMPY_TYPES[self.scale_type])
        return bytes(np.ascontiguousarray(stored).tobytes())

    def second_scale_bytes(self) -> bytes:
        """Raw data of nvfp4's fp32 scale of the whole weight; raises `MemrtError` for the other schemes."""
        if self.second_scale is None:
            raise MemrtError(
                f"second scale of a weight in {self.scheme}",
                expected="nvfp4, the only scheme with two levels",
                found=self.scheme,
                fix="ask for scale_bytes() only",
            )
        return np.float32(self.second_scale).astype("<f4").tobytes()


def pack(
    weight: Tensor,
    scheme: Scheme,
    *,
    block: int = 128,
    reduce_range: bool = False,
    scale_type: Compute = "fp32",
    importance: Tensor | None = None,
) -> PackedWeight:
    """Quantise `weight` [in, out].

    `block` is the wanted int4 block (see `block_size`). `reduce_range` keeps int8 codes in 7 bits, for CPUs whose sums
    of two products saturate 16 bits. `scale_type` must be the type the engine computes in; codes are chosen for the
    scales as they are stored. `importance` [in], the mean square of each input channel, weighs int4's clipping errors
    by what they do to the product. Raises `MemrtError` for another rank, a block that does not divide, or a weight that
    is not finite.
    """
    if weight.dim() != 2 or weight.numel() == 0:
        raise MemrtError(
            "weight to quantise", expected="a matrix [in, out]", found=list(weight.shape), fix="quantise matrices only"
        )
    weight = weight.detach().float().contiguous()
    if scheme == "int8":
        return _pack_int8(weight, 64 if reduce_range else 127, scale_type)
    if scheme == "int4":
        return _pack_int4(weight, block_size(weight.shape[0], "int4", block), scale_type, importance)
    if scheme == "fp8":
        return _pack_fp8(weight, scale_type)
    if scheme == "nvfp4":
        block_size(weight.shape[0], "nvfp4")
        return _pack_nvfp4(weight, scale_type)
    raise MemrtError("unknown scheme", expected=" or ".join(SCHEMES), found=scheme, fix="choose one of them")


def block_size(rows: int, scheme: Scheme, wanted: int = 128) -> int:
    """Input channels per scale for a weight with `rows` input channels; 0: one scale per output channel.

    For int4 the largest of 128, 64, 32, 16 that is at most `wanted` and divides `rows`; 16 for nvfp4. Raises
    `MemrtError` if none divides.
    """
    if scheme in ("int8", "fp8"):
        return 0
    candidates = _blocks(scheme, wanted)
    for candidate in candidates:
        if rows % candidate == 0:
            return candidate
    raise MemrtError(
        f"no {scheme} block divides the weight's {rows} input channels",
        expected=f"a multiple of {' or '.join(map(str, candidates)) or INT4_BLOCKS[-1]}",
        found=rows,
        fix="give this product another scheme in the plan",
    )


def divides(rows: int, scheme: str, wanted: int = 128) -> bool:
    """Whether `scheme` can store a weight with `rows` input channels."""
    return scheme not in ("int4", "nvfp4") or any(rows % block == 0 for block in _blocks(scheme, wanted))


def _blocks(scheme: str, wanted: int) -> tuple[int, ...]:
    return (NVFP4_BLOCK,) if scheme == "nvfp4" else tuple(block for block in INT4_BLOCKS if block <= wanted)


def _row_slices(weight: Tensor) -> Iterator[slice]:
    """Rows of about `SLICE` elements together."""
    rows, columns = weight.shape
    step = max(1, SLICE // columns)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _tiles(weight: Tensor, block: int) -> Iterator[tuple[slice, slice, slice, Tensor]]:
    """Rows, rows of scales, columns, and the elements there as [g, block, columns], about `SLICE` of them."""
    rows, columns = weight.shape
    width = min(columns, max(1, SLICE // block))
    height = max(1, SLICE // width // block)
    for first in range(0, rows // block, height):
        scales = slice(first, min(first + height, rows // block))
        lines = slice(scales.start * block, scales.stop * block)
        for left in range(0, columns, width):
            across = slice(left, min(left + width, columns))
            tile = weight[lines, across].contiguous()
            yield lines, scales, across, tile.view(-1, block, tile.shape[1])


def _column_maxima(weight: Tensor) -> Tensor:
    """Largest magnitude of each output channel, [out]; raises `MemrtError` unless all are finite."""
    maxima = torch.zeros(weight.shape[1])
    for rows in _row_slices(weight):
        torch.maximum(maxima, weight[rows].abs().amax(0), out=maxima)
    if not bool(torch.isfinite(maxima).all()):
        raise MemrtError(
            "weight to quantise", expected="finite values", found="NaN or infinity", fix="check the checkpoint"
        )
    return maxima


def _stored(scale: Tensor, scale_type: Compute) -> Tensor:
    """`scale` as it is stored, positive everywhere: a silent channel gets a scale too, and all codes 0."""
    return scale.clamp_min(SMALLEST_SCALES[scale_type]).to(TORCH_TYPES[scale_type]).float()


def _pack_int8(weight: Tensor, largest: int, scale_type: Compute) -> PackedWeight:
    scale = _stored(_column_maxima(weight) / largest, scale_type)
    values = np.empty(tuple(weight.shape), np.int8)
    for rows in _row_slices(weight):
        values[rows] = (weight[rows] / scale).round_().clamp_(-largest, largest).numpy()
    return PackedWeight("int8", values, scale.numpy(), None, 0, scale_type)


def _pack_int4(weight: Tensor, block: int, scale_type: Compute, importance: Tensor | None) -> PackedWeight:
    _column_maxima(weight)
    rows, columns = weight.shape
    values = np.empty((rows, columns), np.int8)
    scale = np.empty((rows // block, columns), np.float32)
    for lines, scales, across, blocks in _tiles(weight, block):
        weights = None if importance is None else importance[lines].float().view(-1, block, 1)
        chosen = _least_error_scales(blocks, scale_type, weights)
        values[lines, across] = (blocks / chosen).round_().clamp_(-8, 7).flatten(0, 1).numpy()
        scale[scales, across] = chosen[:, 0].numpy()
    return PackedWeight("int4", values, scale, None, block, scale_type)


def _least_error_scales(blocks: Tensor, scale_type: Compute, importance: Tensor | None) -> Tensor:
    """Scales [g, 1, out] of `blocks` [g, block, out] with the least squared error; ties keep the wider range."""
    maxima = blocks.abs().amax(1, keepdim=True)
    best = _stored(maxima / 7, scale_type)
    best_error = torch.full_like(best, torch.inf)
    codes = torch.empty_like(blocks)
    for ratio in CLIPPING_RATIOS:
        scale = _stored(maxima * (ratio / 7), scale_type)
        torch.div(blocks, scale, out=codes)
        codes.round_().clamp_(-8, 7).mul_(scale).sub_(blocks).square_()
        if importance is not None:
            codes.mul_(importance)
        error = codes.sum(1, keepdim=True)
        better = error < best_error
        best = torch.where(better, scale, best)
        best_error = torch.where(better, error, best_error)
    return best


def _pack_fp8(weight: Tensor, scale_type: Compute) -> PackedWeight:
    scale = _stored(_column_maxima(weight) / FP8_MAXIMUM, scale_type)
    values = np.empty(tuple(weight.shape), np.uint8)
    for rows in _row_slices(weight):
        scaled = (weight[rows] / scale).clamp_(-FP8_MAXIMUM, FP8_MAXIMUM)
        values[rows] = scaled.to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    return PackedWeight("fp8", values.view(ml_dtypes.float8_e4m3fn), scale.numpy(), None, 0, scale_type)


def _pack_nvfp4(weight: Tensor, scale_type: Compute) -> PackedWeight:
    largest = float(_column_maxima(weight).max())
    second = np.float32(max(largest / (FP4_MAXIMUM * FP8_MAXIMUM), SMALLEST_SCALES["fp32"]))
    rows, columns = weight.shape
    values = np.empty((rows, columns), np.uint8)
    scale = np.empty((rows // NVFP4_BLOCK, columns), np.uint8)
    for lines, scales, across, blocks in _tiles(weight, NVFP4_BLOCK):
        wanted = blocks.abs().amax(1) / (FP4_MAXIMUM * float(second))
        # The smallest e4m3 keeps an almost silent block's scale above zero.
        stored = wanted.clamp_(2.0**-9, FP8_MAXIMUM).to(torch.float8_e4m3fn)
        scale[scales, across] = stored.view(torch.uint8).numpy()
        values[lines, across] = e2m1_codes(blocks / (stored.float() * float(second))[:, None]).flatten(0, 1).numpy()
    return PackedWeight(
        "nvfp4",
        values.view(ml_dtypes.float4_e2m1fn),
        scale.view(ml_dtypes.float8_e4m3fn),
        float(second),
        NVFP4_BLOCK,
        scale_type,
    )


# Half-way points between the magnitudes 0, ½, 1, 1½, 2, 3, 4, 6 of e2m1.
E2M1_EDGES = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)


def e2m1_codes(x: Tensor) -> Tensor:
    """The e2m1 bit patterns nearest to `x`, uint8 of its shape; beyond ±6 the largest, ties to the even pattern."""
    magnitude = x.abs()
    # A tie belongs to the pattern with an even last bit: the lower one at even edges, the upper one at odd edges.
    codes = torch.zeros(x.shape, dtype=torch.uint8)
    for index, edge in enumerate(E2M1_EDGES):
        codes += (magnitude > edge) if index % 2 == 0 else (magnitude >= edge)
    return codes.bitwise_or_(torch.signbit(x).to(torch.uint8) << 3)
