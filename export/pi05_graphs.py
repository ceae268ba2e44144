"""π0.5 checkpoint to the graphs and tables of a bundle's `ll`: vision, prefix, step, modulation, embeddings.

The three graphs are one shape family each and share nothing that is computed twice: a view is encoded once, the prefix
gives every layer's keys and values once, and a denoise step is the action expert alone. Padding and missing views are
left out instead of masked; positions count what is there, as in training, so the result is the same.

A fourth graph is made on request: `step_rtc`, a step with a flow time per token, for policies that were trained with
real-time chunking (a chunk begins with the clean actions of the one before).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from memrt.export.onnx_graph import write_graph
from memrt.export.pi05_modules import PrefixGraph, RtcStepGraph, StepGraph, VisionGraph
from memrt.export.pi05_tables import read_modulation_table, reader, table_times, write_embedding_table
from memrt.runtime.policy.low_level_config import LowLevelModel, prefix_profiles, write_low_level_model
from memrt.train.pi05.checkpoint import TOKENIZER, bos_token, load_model, norm_stats_path
from memrt.train.pi05.model import Pi05
from memrt.train.pi05.policy import runtime_model

INPUTS: dict[str, tuple[str, ...]] = {
    "vision": ("image",),
    "prefix": ("embeddings", "positions"),
    "step": ("x", "modulation", "positions", "keys", "values"),
    "step_rtc": ("x", "modulation", "row", "positions", "keys", "values"),
}
OUTPUTS: dict[str, tuple[str, ...]] = {
    "vision": ("tokens",),
    "prefix": ("keys", "values"),
    "step": ("velocity",),
    "step_rtc": ("velocity",),
}


def position_count(settings: LowLevelModel) -> int:
    """Positions that can occur: all views, the longest prompt, the action tokens."""
    return settings.max_views * settings.vision_tokens + settings.max_token_len + settings.horizon


def graphs(model: Pi05, settings: LowLevelModel, *, step_rtc: bool = False) -> dict[str, nn.Module]:
    """The modules that are exported, by the name of their file. The weights of `model` may be fake or on `meta`."""
    count = position_count(settings)
    modules: dict[str, nn.Module] = {
        "vision": VisionGraph(model),
        "prefix": PrefixGraph(model, count),
        "step": StepGraph(model, count),
    }
    if step_rtc:
        modules["step_rtc"] = RtcStepGraph(model, count)
    return {name: module.eval() for name, module in modules.items()}


def modulation_table(model: Pi05, steps: int, *, step_rtc: bool = False) -> NDArray[np.float32]:
    """adaRMS (scale, shift, gate) of every norm at every flow time: [steps, 2·layers + 1, 3, expert width].

    With `step_rtc` one more row, the last: clean actions (t = 0).
    """
    return read_modulation_table(reader(model), model.config, table_times(steps, step_rtc=step_rtc))


def export_pi05(weights_dir: Path, out_dir: Path, *, denoise_steps: int | None = None, step_rtc: bool = False) -> Pi05:
    """Write a checkpoint folder as the `ll` of a bundle: fp32 graphs (opset 20), tables, tokenizer, stats, config.

    Returns the network in PyTorch, the reference of the gates. `denoise_steps` defaults to the checkpoint's. `step_rtc`
    asks for that graph too; it is of use to weights that were trained with clean prefixes only.
    """
    model = load_model(weights_dir)
    settings = runtime_model(model.config, bos=bos_token(weights_dir), denoise_steps=denoise_steps)
    write_low_level(model, settings, out_dir, step_rtc=step_rtc)
    shutil.copyfile(weights_dir / TOKENIZER, out_dir / "tokenizer.json")
    shutil.copyfile(norm_stats_path(weights_dir), out_dir / "norm_stats.json")
    return model


def write_low_level(model: Pi05, settings: LowLevelModel, out_dir: Path, *, step_rtc: bool = False) -> None:
    """The files that follow from the network alone."""
    out_dir.mkdir(parents=True, exist_ok=True)
    for name, module in graphs(model, settings, step_rtc=step_rtc).items():
        path, inputs = out_dir / f"{name}.onnx", example(settings, name)
        write_graph(module, inputs, path, INPUTS[name], OUTPUTS[name], shapes(settings, name))
    table = modulation_table(model, settings.denoise_steps, step_rtc=step_rtc)
    np.save(out_dir / "modulation.npy", table, allow_pickle=False)
    write_embedding_table(reader(model), model.config, out_dir / "embed.npy")
    write_low_level_model(settings, out_dir / "config.json")


def shapes(settings: LowLevelModel, name: str) -> tuple[dict[int, Any] | None, ...] | None:
    """The dynamic dimensions of the inputs of graph `name`, as `torch.export` takes them: the prefix's length.

    Lengths that occur: `prefix_profiles`.
    """
    length = torch.export.Dim("length", min=2, max=prefix_profiles(settings)[-1])
    dynamic = {"embeddings": {1: length}, "keys": {2: length}, "values": {2: length}}
    if name == "prefix":
        dynamic["positions"] = {0: length}
    found = tuple(dynamic.get(key) for key in INPUTS[name])
    return found if any(found) else None


def example(settings: LowLevelModel, name: str, tokens: int = 7) -> tuple[Tensor, ...]:
    """Inputs of the right shapes for the graph `name`, with `tokens` tokens in the prefix."""
    size, horizon = settings.image_size, settings.horizon
    cache = torch.zeros(settings.layers, settings.kv_heads, tokens, settings.head_dim)
    row = torch.zeros(settings.modulation_rows, 3, settings.expert_width)
    step = {
        "x": torch.zeros(1, horizon, settings.action_dim),
        "modulation": torch.stack((row, row)) if name == "step_rtc" else row,
        "row": torch.zeros(horizon, dtype=torch.int64),
        "positions": tokens + torch.arange(horizon),
        "keys": cache,
        "values": cache.clone(),
    }
    examples: dict[str, dict[str, Tensor]] = {
        "vision": {"image": torch.zeros(size, size, 3, dtype=torch.uint8)},
        "prefix": {"embeddings": torch.zeros(1, tokens, settings.width), "positions": torch.arange(tokens)},
        "step": step,
        "step_rtc": step,
    }
    return tuple(examples[name][key] for key in INPUTS[name])
