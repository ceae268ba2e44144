"""A graph without its weights: traced from a module whose weights are fake, so a 7B model's graph costs megabytes.

The module is built by the same constructors that build it from real weights, under torch's fake tensors; what it
computes from constants alone (rotary tables, masks) is real and stays in the graph. The names of the missing weights
are the module's own (`layers.3.qkv.weight`), by which the streamed values find their place.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from memrt.export.reproducible import NAME_SCOPES, PRODUCER

# The lowest opset with int4 and block-wise DequantizeLinear. The graphs hold no operator that changed its meaning up to
# `OPSET_TENSORRT`, so the same skeleton serves both by its opset import alone.
OPSET = 21
OPSET_TENSORRT = 23

DynamicShapes = tuple[dict[int, Any] | None, ...]


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A traced graph and the weights it lacks, by name: shape and dtype (float32 throughout)."""

    model: ir.Model
    weights: dict[str, tuple[int, ...]]

    def copy(self) -> ir.Model:
        """A graph of its own, to be edited; weights without data stay without."""
        return self.model.clone()


def fake_mode() -> FakeTensorMode:
    """Under it, `torch.empty` and every model built from a config take no memory."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def is_fake(tensor: Tensor) -> bool:
    """Whether a tensor has a shape but no values."""
    return isinstance(tensor, FakeTensor)


def trace(
    module: nn.Module,
    example: Sequence[Tensor],
    inputs: Sequence[str],
    outputs: Sequence[str],
    shapes: DynamicShapes | None = None,
) -> Skeleton:
    """Trace `module`, whose weights may be fake, at `example` inputs (real; only shapes and types matter).

    `shapes` names the dynamic dimensions, as `torch.export` takes them. Two traces give the same names and nodes.
    """
    mode = next((t.fake_mode for t in (*module.parameters(), *module.buffers()) if isinstance(t, FakeTensor)), None)
    arguments = tuple(example) if mode is None else tuple(mode.from_tensor(tensor) for tensor in example)
    with torch.no_grad(), mode or torch.no_grad():
        program = torch.export.export(module.eval(), arguments, dynamic_shapes=shapes, strict=False)
    with _quiet("onnxscript", "onnx_ir", "torch.onnx"):
        exported = torch.onnx.export(
            program,
            (),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            optimize=False,
            verbose=False,
        )
        assert exported is not None
        model = exported.model
        weights = _without_data(model)
        _optimise(model)
    _tidy(model)
    used = {name: shape for name, shape in weights.items() if name in model.graph.initializers}
    return Skeleton(model, used)


def _without_data(model: ir.Model) -> dict[str, tuple[int, ...]]:
    """Take the fake values out of the graph, which no optimiser could read."""
    missing = {}
    for name, value in model.graph.initializers.items():
        raw = getattr(value.const_value, "raw", None)
        if isinstance(raw, FakeTensor):
            missing[name] = tuple(int(size) for size in raw.shape)
            value.const_value = None
    return missing


def _optimise(model: ir.Model) -> None:
    from onnxscript.optimizer import optimize_ir

    optimize_ir(model)


def _tidy(model: ir.Model) -> None:
    """Name nodes after modules, drop everything that tells where and when the graph was traced."""
    used: Counter[str] = Counter()
    for node in model.graph:
        scopes = node.metadata_props.get(NAME_SCOPES)
        stem = f"{_module(scopes) or 'graph'}/{node.op_type}"
        used[stem] += 1
        node.name = stem if used[stem] == 1 else f"{stem}_{used[stem]}"
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
        value.doc_string = None
    model.producer_name, model.producer_version, model.doc_string, model.domain = PRODUCER, "", "", ""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.graph.name, model.graph.doc_string = "graph", ""


def _module(scopes: str | None) -> str:
    import ast

    names = ast.literal_eval(scopes) if scopes else []
    return str(names[-2]) if len(names) > 1 else ""


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """The exporter warns of every weight that it finds without data: here that is the point."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
