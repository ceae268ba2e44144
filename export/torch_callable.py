"""A torch module as a function over arrays by name: the reference that an engine is gated against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Array = NDArray[Any]


def torch_callable(
    module: nn.Module, inputs: Sequence[str], outputs: Sequence[str]
) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
    """`module` as a function from arrays by name to arrays by name."""
    module.eval()

    def run(feed: Mapping[str, Array]) -> dict[str, Array]:
        with torch.no_grad():
            values = module(*(torch.from_numpy(np.ascontiguousarray(feed[name])) for name in inputs))
        tensors = (values,) if isinstance(values, Tensor) else values
        return {name: np.asarray(value) for name, value in zip(outputs, tensors, strict=True)}

    return run
