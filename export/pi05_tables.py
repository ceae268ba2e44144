"""The tables beside π0.5's graphs, from weights read one tensor at a time: adaptive norms by flow time, and embeddings.

`Read` gives the tensor of an openpi name. A released checkpoint's embedding table alone is 2 GB in float32, so nothing
here holds more than one tensor and a few rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from memrt.train.pi05.checkpoint import EMBEDDING
from memrt.train.pi05.config import Pi05Config
from memrt.train.pi05.model import Pi05, time_features
from memrt.train.pi05.sampling import flow_times

Read = Callable[[str], Tensor]

EXPERT = "paligemma_with_expert.gemma_expert.model"
CLEAN = 0.0  # the flow time of actions that carry no noise
ROWS_AT_ONCE = 4096


def norm_names(depth: int) -> list[str]:
    """openpi's names of the expert's adaptive norms, in the order of the modulation table's rows."""
    kinds = ("input_layernorm", "post_attention_layernorm")
    return [*(f"{EXPERT}.layers.{layer}.{kind}" for layer in range(depth) for kind in kinds), f"{EXPERT}.norm"]


@torch.no_grad()
def read_modulation_table(read: Read, config: Pi05Config, times: Sequence[float]) -> NDArray[np.float32]:
    """adaRMS (scale, shift, gate) of every norm at every flow time: [times, 2·depth + 1, 3, expert width]."""

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, read(f"{name}.weight").float(), read(f"{name}.bias").float())

    features = time_features(torch.tensor(times), config.expert.width)
    condition = F.silu(linear(F.silu(linear(features, "time_mlp_in")), "time_mlp_out"))
    names = norm_names(config.expert.depth)
    table = np.empty((len(times), len(names), 3, config.expert.width), np.float32)
    for index, name in enumerate(names):
        table[:, index] = linear(condition, f"{name}.dense").unflatten(-1, (3, -1)).numpy()
    return table


@torch.no_grad()
def write_embedding_table(read: Read, config: Pi05Config, path: Path) -> None:
    """Write token embeddings float32 [vocabulary, width], scaled by √width already, as `.npy`."""
    weight = read(EMBEDDING)
    table = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=tuple(weight.shape))
    scale = config.prefix.width**0.5
    for start in range(0, weight.shape[0], ROWS_AT_ONCE):
        table[start : start + ROWS_AT_ONCE] = (weight[start : start + ROWS_AT_ONCE].float() * scale).numpy()
    table.flush()


def table_times(denoise_steps: int, *, step_rtc: bool) -> list[float]:
    """Flow times of the modulation table's rows: one per denoise step, then for `step_rtc` that of clean actions."""
    return [*flow_times(denoise_steps), *([CLEAN] if step_rtc else [])]


def reader(model: Pi05) -> Read:
    """Reads from a network in memory."""
    tensors = model.state_dict()
    return tensors.__getitem__
