from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from memrt.export.quantisers.packed import (
    FP4_MAXIMUM,
    SCHEMES,
    SMALLEST_SCALES,
    Compute,
    PackedWeight,
    Scheme,
    block_size,
    e2m1_codes,
    pack,
)
from memrt.runtime.errors import MemrtError

ONNX_TYPES = {
    "int8": onnx.TensorProto.INT8,
    "int4": onnx.TensorProto.INT4,
    "fp8": onnx.TensorProto.FLOAT8E4M3FN,
    "nvfp4": onnx.TensorProto.FLOAT4E2M1,
}
matrices = st.builds(
    lambda rows, columns, seed, size: (
        torch.randn(rows * 16, columns, generator=torch.Generator().manual_seed(seed)) * 10.0**size
    ),
    st.integers(1, 9),
    st.integers(1, 7),
    st.integers(0, 2**31),
    st.integers(-4, 2),
)
computes = st.sampled_from(["fp32", "fp16", "bf16"])


def effective_scale(packed: PackedWeight) -> torch.Tensor:
    """The step of every element, [in, out]."""
    scale = torch.from_numpy(packed.scale.astype(np.float32)) * (packed.second_scale or 1.0)
    if packed.block:
        return scale.repeat_interleave(packed.block, 0)
    return scale.expand(packed.values.shape)


@settings(max_examples=60, deadline=None)
@given(matrices, st.sampled_from(["int8", "int4"]), computes)
def test_integers_are_within_half_a_step_unless_clipped(w: torch.Tensor, scheme: Scheme, scale_type: Compute) -> None:
    packed = pack(w, scheme, scale_type=scale_type)
    step, low, high = effective_scale(packed), *((-127, 127) if scheme == "int8" else (-8, 7))
    # What the engine's own rounding of code × scale to its type adds.
    rounding = {"fp32": 2.0**-23, "fp16": 2.0**-11, "bf16": 2.0**-8}[scale_type] * w.abs() + 2.0**-24
    nearest = torch.maximum(torch.minimum(w, high * step), low * step)
    assert bool(((packed.dequantise() - nearest).abs() <= step * 0.5001 + rounding).all())
    if scheme == "int8" and float(w.abs().amax(0).min()) / 127 > SMALLEST_SCALES[scale_type]:
        assert float(((w - nearest).abs() / w.abs().amax(0)).max()) < 2.0**-4  # only a rounded scale may clip


@settings(max_examples=40, deadline=None)
@given(matrices)
def test_floats_are_within_their_relative_precision(w: torch.Tensor) -> None:
    fp8 = pack(w, "fp8")
    error = (fp8.dequantise() - w).abs()
    assert bool((error <= w.abs() * 2.0**-4 + effective_scale(fp8) * 2.0**-10).all())
    nvfp4 = pack(w, "nvfp4")
    step = effective_scale(nvfp4)
    # Half the widest gap of e2m1 (4 to 6), plus what rounding the block's scale to e4m3 (3 bits) can clip.
    assert bool(((nvfp4.dequantise() - w).abs() <= step * (1.0 + FP4_MAXIMUM * 2.0**-3)).all())


@settings(max_examples=30, deadline=None)
@given(matrices, st.sampled_from(SCHEMES))
def test_raw_data_is_what_onnx_reads(w: torch.Tensor, scheme: Scheme) -> None:
    packed = pack(w[:, :-1] if w.shape[1] > 1 else w, scheme)
    proto = onnx.TensorProto(data_type=ONNX_TYPES[scheme], dims=packed.values.shape, raw_data=packed.to_bytes())
    read = numpy_helper.to_array(proto).astype(np.float32)
    assert np.array_equal(read, packed.values.astype(np.float32))


def test_an_odd_number_of_nibbles_is_padded() -> None:
    packed = pack(torch.randn(16, 1, generator=torch.Generator().manual_seed(0)), "int4", block=16)
    odd = PackedWeight("int4", packed.values[:3], packed.scale, None, 16)
    proto = onnx.TensorProto(data_type=onnx.TensorProto.INT4, dims=(3, 1), raw_data=odd.to_bytes())
    assert numpy_helper.to_array(proto).astype(int).tolist() == odd.values.astype(int).tolist()


@given(st.lists(st.floats(-8.0, 8.0, width=32), min_size=1, max_size=64))
def test_e2m1_rounds_as_ml_dtypes_does(values: list[float]) -> None:
    x = np.array([*values, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, -0.25, -2.5, -5.0, 7.0, -7.0], np.float32)
    ours = e2m1_codes(torch.from_numpy(x)).numpy().view(ml_dtypes.float4_e2m1fn)
    theirs = np.clip(x, -6, 6).astype(ml_dtypes.float4_e2m1fn)
    assert np.array_equal(ours.astype(np.float32), theirs.astype(np.float32))


def test_searching_the_scale_costs_less_than_the_largest_magnitude_as_range() -> None:
    w = torch.randn(256, 64, generator=torch.Generator().manual_seed(0))
    blocks = w.view(2, 128, 64)
    scale = blocks.abs().amax(1, keepdim=True) / 7
    plain = ((blocks / scale).round().clamp(-8, 7) * scale).view_as(w)
    searched = pack(w, "int4").dequantise()
    assert float((searched - w).square().sum()) < 0.9 * float((plain - w).square().sum())


def test_importance_moves_the_error_to_channels_that_matter_less() -> None:
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(128, 64, generator=generator)
    x = torch.randn(200, 128, generator=generator) * torch.exp(2 * torch.randn(128, generator=generator))

    def error(packed: PackedWeight) -> float:
        return float((x @ (packed.dequantise() - w)).square().sum())

    assert error(pack(w, "int4", importance=x.square().mean(0))) < 0.9 * error(pack(w, "int4"))


def test_reduced_range_uses_seven_bits() -> None:
    w = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    assert np.abs(pack(w, "int8", reduce_range=True).values).max() == 64
    assert np.abs(pack(w, "int8").values).max() == 127


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_silent_weight_stays_zero(scheme: Scheme) -> None:
    packed = pack(torch.zeros(32, 4), scheme, scale_type="fp16")
    assert not packed.dequantise().any()
    assert (packed.scale.astype(np.float32) > 0).all()


def test_slices_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    w = torch.randn(256, 40, generator=torch.Generator().manual_seed(0))
    whole = [pack(w, scheme, block=32) for scheme in SCHEMES]
    monkeypatch.setattr("memrt.export.quantisers.packed.SLICE", 1000)
    for packed in whole:
        sliced = pack(w, packed.scheme, block=32)
        assert sliced.to_bytes() == packed.to_bytes()
        assert sliced.scale_bytes() == packed.scale_bytes()
        assert torch.equal(sliced.dequantise(), packed.dequantise())


def test_block_sizes() -> None:
    assert [block_size(n, "int4") for n in (256, 192, 96, 48)] == [128, 64, 32, 16]
    assert block_size(256, "int4", 64) == 64
    assert block_size(100, "int8") == 0
    with pytest.raises(MemrtError, match="no int4 block divides"):
        block_size(100, "int4")
    with pytest.raises(MemrtError, match="no nvfp4 block divides"):
        pack(torch.zeros(8, 8), "nvfp4")


def test_bad_weights_are_refused() -> None:
    with pytest.raises(MemrtError, match="a matrix"):
        pack(torch.zeros(16), "int8")
    for scheme in SCHEMES:
        with pytest.raises(MemrtError, match="finite"):
            pack(torch.full((16, 2), torch.nan), scheme)
    with pytest.raises(MemrtError, match="two levels"):
        pack(torch.ones(16, 2), "int8").second_scale_bytes()
