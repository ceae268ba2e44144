"""Smoothing: moves the outliers of activations into the weights before both are quantised.

A transformer's activations have a few channels far larger than the rest, and one range for the whole tensor then
leaves the others with a handful of steps. Clipping loses what the outliers carry. But x @ W = (x / s) @ (s · W) for any
positive s per channel, and weights have a scale per output channel to absorb it. With s = max|x|^α / max|W|^(1-α) both
sides become easy (SmoothQuant, Xiao et al. 2023, arXiv:2211.10438, equation 4).

The division is folded into the norm in front where there is one; elsewhere it is one product with a constant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memrt.calib.ranges import channel_maxima

Feeds = Mapping[str, NDArray[Any]]
# Channels that are (nearly) silent in the calibration set must not turn their weights into the new outliers.
SMALLEST_RATIO = 1e-3


def smooth(model: Any, names: Sequence[str], feeds: Sequence[Feeds], *, alpha: float, threads: int = 1) -> int:
    """Smooth the named MatMul/Gemm nodes of a ModelProto in place; returns how many activations were smoothed.

    `alpha` in 0..1 is the share of the difficulty that goes to the weights; 0 leaves the model as it is.
    """
    if alpha == 0.0:
        return 0
    graph = _Graph(model)
    groups: dict[str, list[Any]] = {}
    for node in model.graph.node:
        if node.name in set(names) and _channel_axis(node) is not None:
            groups.setdefault(node.input[0], []).append(node)
    maxima = channel_maxima(model, sorted(groups), feeds, threads=threads)
    for activation, nodes in groups.items():
        scale = _scale(maxima[activation], [graph.weight_maxima(node) for node in nodes], alpha)
        for node in nodes:
            graph.multiply_weight(node, scale)
        graph.divide_activation(activation, nodes, scale)
    graph.finish()
    return len(groups)


def _scale(
    activation: NDArray[np.float32], weights: Sequence[NDArray[np.float32]], alpha: float
) -> NDArray[np.float32]:
    """s float32 [channels], from the largest magnitudes of the activation and of all weights that read it."""
    x = activation.astype(np.float64)
    w = np.max(weights, axis=0).astype(np.float64)
    x = np.maximum(x, SMALLEST_RATIO * x.max(initial=0.0))
    w = np.maximum(w, SMALLEST_RATIO * w.max(initial=0.0))
    if not (x.all() and w.all()):  # an activation or a weight that is all zero needs no smoothing
        return np.ones(len(x), np.float32)
    scale = x**alpha / w ** (1.0 - alpha)
    return (scale / np.exp(np.log(scale).mean())).astype(np.float32)


def _channel_axis(node: Any) -> int | None:
    """The axis of the weight along which it meets the activation's channels; None where smoothing does not apply."""
    if node.op_type == "MatMul":
        return 0
    flags = {a.name: a.i for a in node.attribute if a.name in ("transA", "transB")}
    return None if flags.get("transA") else int(bool(flags.get("transB")))


class _Graph:
    """The edits, on an index of the graph."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._producers = {name: node for node in model.graph.node for name in node.output}
        self._readers: dict[str, list[Any]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._outputs = {value.name for value in model.graph.output}

    def weight_maxima(self, node: Any) -> NDArray[np.float32]:
        """Largest magnitude of each input channel's weights."""
        axis = _channel_axis(node)
        assert axis is not None
        maxima: NDArray[np.float32] = np.abs(self._array(node.input[1])).max(axis=1 - axis)
        return maxima

    def multiply_weight(self, node: Any, scale: NDArray[np.float32]) -> None:
        """Give the node its own weight, s · W."""
        factor = scale[:, None] if _channel_axis(node) == 0 else scale[None, :]
        node.input[1] = self._constant(f"{node.input[1]}/smooth", self._array(node.input[1]) * factor)

    def divide_activation(self, activation: str, nodes: Sequence[Any], scale: NDArray[np.float32]) -> None:
        """Divide what `nodes` read by s: in the norm that produces it for them alone, or by an own product."""
        producer = self._producers.get(activation)
        alone = len(self._readers[activation]) == len(nodes) and activation not in self._outputs
        if producer is not None and alone and self._divide_norm(producer, scale):
            return
        self._insert_product(activation, nodes, scale)

    def finish(self) -> None:
        """Drop constants that nobody reads any more."""
        used = {name for node in self._model.graph.node for name in node.input} | self._outputs
        for tensor in [t for t in self._model.graph.initializer if t.name not in used]:
            self._model.graph.initializer.remove(tensor)

    def _divide_norm(self, producer: Any, scale: NDArray[np.float32]) -> bool:
        """Fold into LayerNormalization's weight and bias, or into the product with a norm's weight."""
        if producer.op_type == "LayerNormalization":
            positions = list(range(1, len(producer.input)))
        elif producer.op_type == "Mul":
            positions = [i for i, name in enumerate(producer.input) if self._is_vector(name, len(scale))]
        else:
            return False
        if not positions or not all(self._is_vector(producer.input[i], len(scale)) for i in positions):
            return False
        for i in positions if producer.op_type == "LayerNormalization" else positions[:1]:
            name = producer.input[i]
            producer.input[i] = self._constant(f"{name}/smooth/{producer.output[0]}", self._array(name) / scale)
        return True

    def _insert_product(self, activation: str, nodes: Sequence[Any], scale: NDArray[np.float32]) -> None:
        from onnx import helper

        smoothed = f"{activation}/smooth"
        factor = self._constant(f"{activation}/smooth/scale", (1.0 / scale).astype(np.float32))
        module = nodes[0].name.rsplit("/", 1)[0]
        product = helper.make_node("Mul", [activation, factor], [smoothed], name=f"{module}/Smooth")
        where = min(list(self._model.graph.node).index(node) for node in nodes)
        self._model.graph.node.insert(where, product)
        for node in self._model.graph.node:
            if node.name in {reader.name for reader in nodes}:
                node.input[0] = smoothed

    def _is_vector(self, name: str, length: int) -> bool:
        tensor = self._constants.get(name)
        return tensor is not None and list(tensor.dims) == [length]

    def _array(self, name: str) -> NDArray[np.float32]:
        from onnx import numpy_helper

        array: NDArray[np.float32] = numpy_helper.to_array(self._constants[name])
        return array

    def _constant(self, name: str, array: NDArray[np.float32]) -> str:
        from onnx import numpy_helper

        tensor = numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name)
        self._model.graph.initializer.append(tensor)
        self._constants[name] = tensor
        return name
