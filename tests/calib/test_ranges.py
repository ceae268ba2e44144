from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memrt.calib.ranges import HISTOGRAM_BINS, RangeMethod, choose_interval, observe_ranges
from memrt.runtime.errors import MemrtError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper  # noqa: E402


def relu_model() -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n"])
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["y"], ["z"])]
    graph = helper.make_graph(nodes, "g", [x], [z])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def quantisation_error(values: np.ndarray, interval: tuple[float, float]) -> float:
    low, high = interval
    scale = (high - low) / 255
    return float(np.square(low + np.clip(np.rint((values - low) / scale), 0, 255) * scale - values).sum())


def histogram(values: np.ndarray) -> tuple[float, float, np.ndarray]:
    low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
    return low, high, np.histogram(values, HISTOGRAM_BINS, (low, high))[0]


def test_minmax_spans_all_feeds_of_any_length_and_zero() -> None:
    feeds = [{"x": np.array([1.0, 2.0], np.float32)}, {"x": np.array([-3.0, 0.5, 4.0], np.float32)}]
    ranges = observe_ranges(relu_model(), ["x", "y", "z"], feeds, method=RangeMethod("minmax"))
    assert ranges == {"x": (-3.0, 4.0), "y": (0.0, 4.0), "z": (-4.0, 0.0)}


def test_mse_cuts_a_rare_outlier_only_when_that_is_cheaper() -> None:
    rng = np.random.default_rng(0)
    many = np.append(rng.normal(size=1_000_000), 40.0)
    few = np.append(rng.normal(size=2_000), 40.0)
    assert choose_interval(*histogram(many), RangeMethod("mse"))[1] < 35
    assert choose_interval(*histogram(few), RangeMethod("mse"))[1] == 40.0


def test_percentile_holds_its_share() -> None:
    values = np.random.default_rng(1).uniform(-1, 1, 100_000)
    low, high = choose_interval(*histogram(values), RangeMethod("percentile", 99.0))
    assert low == pytest.approx(-0.98, abs=5e-3)
    assert high == pytest.approx(0.98, abs=5e-3)


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=200))
def test_every_method_stays_inside_the_seen_range_and_keeps_zero(values: list[float]) -> None:
    low, high, counts = histogram(np.array(values))
    for name in ("minmax", "percentile", "mse"):
        chosen_low, chosen_high = choose_interval(low, high, counts, RangeMethod(name))
        assert low <= chosen_low <= 0.0 <= chosen_high <= high


@given(st.integers(0, 2**32 - 1), st.floats(1.0, 4.0))
def test_mse_is_never_worse_than_minmax(seed: int, tail: float) -> None:
    values = np.random.default_rng(seed).standard_t(tail, 2000)
    low, high, counts = histogram(values)
    centres = np.repeat((np.linspace(low, high, HISTOGRAM_BINS + 1)[:-1] + (high - low) / HISTOGRAM_BINS / 2), counts)
    chosen = choose_interval(low, high, counts, RangeMethod("mse"))
    assert quantisation_error(centres, chosen) <= quantisation_error(centres, (low, high)) * (1 + 1e-9)


def test_refuses_no_feeds_and_non_finite_activations() -> None:
    with pytest.raises(MemrtError, match="no calibration feeds"):
        observe_ranges(relu_model(), ["y"], [])
    with pytest.raises(MemrtError, match="not finite"):
        observe_ranges(relu_model(), ["y"], [{"x": np.array([np.inf], np.float32)}])


def test_refuses_an_unknown_method() -> None:
    with pytest.raises(MemrtError, match="minmax, percentile or mse"):
        RangeMethod("entropy")  # type: ignore[arg-type]
