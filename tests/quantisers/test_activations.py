from __future__ import annotations

from typing import Literal

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from memrt.export.quantisers.activations import HALF_BINS, ActivationRange
from memrt.export.quantisers.fake import quantise_activation, round_activation
from memrt.runtime.errors import MemrtError

CODES = {"u8": TensorProto.UINT8, "s8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}


def seen(*tensors: torch.Tensor, histogram: bool = False) -> ActivationRange:
    result = ActivationRange(histogram=histogram)
    for tensor in tensors:
        result.update(tensor)
    return result


def quantised_by_onnx(x: np.ndarray, kind: str, scale: float, zero: int) -> np.ndarray:
    """Round with QuantizeLinear and DequantizeLinear in ONNX's reference implementation."""
    constants = [
        helper.make_tensor("scale", TensorProto.FLOAT, [], [scale]),
        helper.make_tensor("zero", CODES[kind], [], [zero]),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    found: np.ndarray = ReferenceEvaluator(model).run(None, {"x": x})[0]
    return found


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["u8", "s8", "fp8"]), st.integers(0, 2**31), st.floats(-2.0, 3.0))
def test_rounding_is_onnx_rounding(kind: Literal["u8", "s8", "fp8"], seed: int, shift: float) -> None:
    x = torch.randn(200, generator=torch.Generator().manual_seed(seed)) + shift
    activation = seen(x[:100]).parameters(kind)  # the other half holds values outside the range
    scale = float(np.float32(activation[1]))
    zero = activation[2] if activation[0] == "u8" else 0
    # x / scale in fp32 on both sides; a tie may fall either way, so compare in steps.
    theirs = quantised_by_onnx(x.numpy(), kind, scale, zero)
    ours = round_activation(x, activation).numpy()
    assert np.mean(np.abs(ours - theirs) < 1e-5 * (1 + np.abs(theirs))) > 0.99
    assert np.abs(ours - theirs).max() <= (scale if kind != "fp8" else 0.07 * np.abs(theirs).max()) * 1.001


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(-3.0, 3.0))
def test_values_inside_the_range_are_within_half_a_step(seed: int, shift: float) -> None:
    x = torch.randn(300, generator=torch.Generator().manual_seed(seed)) + shift
    observed = seen(x[:150], x[150:])
    low, high = observed.interval()
    assert (low, high) == (min(0.0, float(x.min())), max(0.0, float(x.max())))
    assert observed.amax == float(x.abs().max())
    # Rounding the zero point moves the interval by at most half a step at its ends.
    assert float((quantise_activation(x, observed, "u8") - x).abs().max()) <= (high - low) / 255 * 1.001
    assert float((quantise_activation(x, observed, "s8") - x).abs().max()) <= observed.amax / 127 / 2 * 1.001
    assert float(((quantise_activation(x, observed, "fp8") - x).abs() / observed.amax).max()) <= 2.0**-4
    assert torch.equal(quantise_activation(x, observed, None), x)
    assert float(quantise_activation(torch.zeros(1), observed, "u8")) == 0.0


def test_fp4_blocks_find_their_own_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 64, generator=generator) * torch.exp(
        2 * torch.randn(8, 4, generator=generator)
    ).repeat_interleave(16, 1)
    rounded = quantise_activation(x, seen(x), "nvfp4")
    blocks = x.view(-1, 16).abs().amax(1, keepdim=True)
    assert float(((rounded - x).view(-1, 16).abs() / blocks).max()) < 1 / 6 + 0.07
    assert float((rounded - x).norm() / x.norm()) < 0.15
    with pytest.raises(MemrtError, match="multiple of 16"):
        quantise_activation(x[:, :15], seen(x), "nvfp4")


def test_percentiles_clip_outliers_and_the_histogram_follows_growing_ranges() -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(20_000, generator=generator) * size for size in (0.01, 1.0, 1.0, 1.0, 1.0)]
    tensors.append(torch.tensor([1000.0, -300.0]))
    observed = seen(*tensors, histogram=True)
    low, high = observed.interval(99.9)
    values = torch.cat(tensors)
    step = 2 * observed.amax / HALF_BINS
    assert abs(high - float(values.quantile(0.999))) <= step
    assert abs(low - float(values.quantile(0.001))) <= step
    assert observed.interval() == (-300.0, 1000.0)
    assert observed.parameters("s8", 99.9)[1] < 0.01 * observed.parameters("s8")[1]


def test_the_histogram_counts_every_value() -> None:
    observed = seen(torch.linspace(-1, 1, 1001), 100 * torch.linspace(-1, 1, 1001), histogram=True)
    assert observed._counts is not None
    assert float(observed._counts.sum()) == 2002


def test_one_sided_ranges_keep_zero() -> None:
    observed = seen(torch.tensor([3.0, 5.0]))
    assert observed.interval() == (0.0, 5.0)
    assert observed.parameters("u8") == ("u8", pytest.approx(5.0 / 255.0), 0)
    assert seen(torch.tensor([-5.0])).parameters("u8") == ("u8", pytest.approx(5.0 / 255.0), 255)
    kind, scale = observed.parameters("s8", compute="bf16")[:2]
    assert (kind, scale) == ("s8", float(torch.tensor(5.0 / 127.0).bfloat16()))


def test_silence_and_bad_values() -> None:
    silent = seen(torch.zeros(4), torch.zeros(0))
    assert float(quantise_activation(torch.zeros(4), silent, "u8").abs().max()) == 0.0
    with pytest.raises(MemrtError, match="not finite"):
        seen(torch.tensor([torch.nan]))
    with pytest.raises(MemrtError, match="not finite"):
        seen(torch.tensor([-torch.inf, 1.0]))
    with pytest.raises(MemrtError, match="histogram"):
        seen(torch.ones(3)).interval(99.0)
    with pytest.raises(MemrtError, match="50"):
        seen(torch.ones(3), histogram=True).interval(10.0)
