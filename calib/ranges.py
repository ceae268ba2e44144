"""Activation ranges: which interval of a tensor's values the 256 steps of a uint8 should cover.

Two passes over the calibration feeds. The first finds every tensor's true minimum and maximum, the second counts
its values into a histogram between them, so that memory does not grow with the number of feeds. A method then picks
the interval:

- `minmax`: everything ever seen; one outlier costs resolution for all other values.
- `percentile`: the interval that holds the given share of all values on each side.
- `mse`: the interval whose rounding plus clipping error, summed over the histogram, is smallest.

The outliers of transformer activations are few but carry signal. Measured on the reference high level: clipping them,
by either method, changes two to three times as many answer tokens as the coarser steps of `minmax` do.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from memrt.runtime.errors import MemrtError

Feeds = Mapping[str, NDArray[Any]]
Method = Literal["minmax", "percentile", "mse"]

HISTOGRAM_BINS = 2048
UINT8_STEPS = 255
# How far `mse` may shrink each end of the true range; 32 geometric steps reach 1/32 of it.
SHRINK_FACTORS: NDArray[np.float64] = np.geomspace(1.0, 1.0 / 32.0, 32)
# Tensors observed per pass: bounds the memory that their values take when all are outputs of one run.
TENSORS_PER_PASS = 96


@dataclass(frozen=True)
class RangeMethod:
    """How to choose intervals; `percentile` (in percent, per side) is used by the method of that name only."""

    name: Method = "minmax"
    percentile: float = 99.999

    def __post_init__(self) -> None:
        if self.name not in ("minmax", "percentile", "mse"):
            raise MemrtError(
                "unknown range method", expected="minmax, percentile or mse", found=self.name, fix="choose one of them"
            )
        if not 50.0 < self.percentile <= 100.0:
            raise MemrtError(
                "percentile of the calibration ranges", expected="50 < p <= 100", found=self.percentile, fix="use 99.99"
            )


def observe_ranges(
    model: Any, tensors: Sequence[str], feeds: Sequence[Feeds], *, method: RangeMethod | None = None, threads: int = 1
) -> dict[str, tuple[float, float]]:
    """Run the ONNX `model` (a ModelProto, fp32) on every feed; return the chosen (low, high) of each named tensor.

    Every interval contains 0, so that zero stays exact. Raises `MemrtError` when there are no feeds or a tensor
    takes a non-finite value.
    """
    if not feeds:
        raise MemrtError(
            "no calibration feeds", expected="at least one sample", found="none", fix="record a calibration set"
        )
    method = method or RangeMethod()
    ranges: dict[str, tuple[float, float]] = {}
    for start in range(0, len(tensors), TENSORS_PER_PASS):
        names = list(tensors[start : start + TENSORS_PER_PASS])
        probe = _Probe(model, names, threads)
        bounds = probe.bounds(feeds)
        counts = {} if method.name == "minmax" else probe.histograms(feeds, bounds)
        for name in names:
            ranges[name] = choose_interval(*bounds[name], counts.get(name), method)
    return ranges


def channel_maxima(
    model: Any, tensors: Sequence[str], feeds: Sequence[Feeds], *, threads: int = 1
) -> dict[str, NDArray[np.float32]]:
    """Largest magnitude of each named tensor along its last axis over all feeds, float32 [channels]."""
    maxima: dict[str, NDArray[np.float32]] = {}
    for start in range(0, len(tensors), TENSORS_PER_PASS):
        probe = _Probe(model, list(tensors[start : start + TENSORS_PER_PASS]), threads)
        for feed in feeds:
            for name, value in probe.values(feed).items():
                seen = np.abs(value).reshape(-1, value.shape[-1]).max(axis=0).astype(np.float32)
                maxima[name] = np.maximum(maxima[name], seen) if name in maxima else seen
    return maxima


def choose_interval(
    low: float, high: float, counts: NDArray[np.int64] | None, method: RangeMethod
) -> tuple[float, float]:
    """Pick the interval for values in [low, high] (0 inside) with the histogram `counts` int64 [bins] over it."""
    if method.name == "minmax" or counts is None or high <= low:
        return low, high
    edges = np.linspace(low, high, len(counts) + 1)
    if method.name == "percentile":
        return _percentile_interval(edges, counts, method.percentile)
    return _least_error_interval(edges, counts)


def _percentile_interval(
    edges: NDArray[np.float64], counts: NDArray[np.int64], percentile: float
) -> tuple[float, float]:
    cumulative = np.cumsum(counts)
    outside = (100.0 - percentile) / 100.0 * float(cumulative[-1])
    first = int(np.searchsorted(cumulative, outside, side="right"))
    last = int(np.searchsorted(cumulative, float(cumulative[-1]) - outside, side="left"))
    return min(0.0, float(edges[first])), max(0.0, float(edges[last + 1]))


def _least_error_interval(edges: NDArray[np.float64], counts: NDArray[np.int64]) -> tuple[float, float]:
    """Search both ends separately over `SHRINK_FACTORS`; ties keep the wider interval."""
    occupied = counts > 0
    centres = ((edges[:-1] + edges[1:]) / 2)[occupied]
    weights = counts[occupied].astype(np.float64)
    low, high = float(edges[0]), float(edges[-1])
    lows = low * SHRINK_FACTORS if low < 0 else np.zeros(1)
    highs = high * SHRINK_FACTORS if high > 0 else np.zeros(1)
    best, best_error = (low, high), np.inf
    for candidate_low in lows:
        # Errors for all candidate high ends at once: [ends, bins].
        scale = (highs[:, None] - candidate_low) / UINT8_STEPS
        steps = np.clip(np.rint((centres[None, :] - candidate_low) / scale), 0, UINT8_STEPS)
        errors = np.square(candidate_low + steps * scale - centres[None, :]) @ weights
        k = int(np.argmin(errors))
        if errors[k] < best_error:
            best, best_error = (float(candidate_low), float(highs[k])), float(errors[k])
    return best


class _Probe:
    """The model with the observed tensors as its only outputs."""

    def __init__(self, model: Any, names: list[str], threads: int) -> None:
        import onnx
        import onnxruntime

        graph_inputs = {value.name for value in model.graph.input}
        probe = copy.deepcopy(model)
        del probe.graph.output[:]
        inner = [name for name in names if name not in graph_inputs]
        probe.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inner)
        self._from_feed = [name for name in names if name in graph_inputs]
        self._names = inner
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.use_deterministic_compute = True
        # Basic only: fused operators would compute the values that the plain graph's ranges are meant for differently.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        self._session = (
            onnxruntime.InferenceSession(
                probe.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
            )
            if inner
            else None
        )

    def bounds(self, feeds: Sequence[Feeds]) -> dict[str, tuple[float, float]]:
        """True minimum and maximum over all feeds, widened to contain 0."""
        bounds: dict[str, tuple[float, float]] = {}
        for feed in feeds:
            for name, value in self.values(feed).items():
                low, high = float(value.min(initial=0.0)), float(value.max(initial=0.0))
                if not np.isfinite(low + high):
                    raise MemrtError(
                        f"activation '{name}' is not finite on a calibration sample",
                        expected="finite fp32 activations",
                        found=f"minimum {low}, maximum {high}",
                        fix="check the weights and the calibration set",
                    )
                seen = bounds.get(name, (0.0, 0.0))
                bounds[name] = min(seen[0], low), max(seen[1], high)
        return bounds

    def histograms(
        self, feeds: Sequence[Feeds], bounds: Mapping[str, tuple[float, float]]
    ) -> dict[str, NDArray[np.int64]]:
        """Counts int64 [HISTOGRAM_BINS] of each tensor's values between its bounds."""
        counts = {name: np.zeros(HISTOGRAM_BINS, np.int64) for name in bounds}
        for feed in feeds:
            for name, value in self.values(feed).items():
                low, high = bounds[name]
                if high > low:
                    counts[name] += np.histogram(value, bins=HISTOGRAM_BINS, range=(low, high))[0]
        return counts

    def values(self, feed: Feeds) -> dict[str, NDArray[Any]]:
        """The observed tensors of one feed."""
        values = {name: np.asarray(feed[name]) for name in self._from_feed}
        if self._session is not None:
            values.update(zip(self._names, self._session.run(self._names, dict(feed)), strict=True))
        return values
