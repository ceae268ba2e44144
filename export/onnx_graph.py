"""A torch module to an fp32 ONNX file with its weights inside: the reference policies' way, who fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

OPSET = 20  # fp32 graphs for ONNX Runtime; streamed graphs need 21 and 23 (`streaming.skeleton`)


def write_graph(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
    shapes: tuple[dict[int, Any] | None, ...] | None,
) -> None:
    """Export `module` at `example` inputs to `path`; `shapes` are dynamic dimensions, as `torch.export` takes them."""
    with torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=shapes,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(path), external_data=False)
