"""π0.5 checkpoint to the graphs and tables of a bundle's `ll`: vision, prefix, step, modulation, embeddings.

The three graphs are one shape family each and share nothing that is computed twice: a view is encoded once, the prefix
gives every layer's keys and values once, and a denoise step is the action expert alone. Padding and missing views are
left out instead of masked; positions count what is there, as in training, so the result is the same.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from memrt.runtime.policy.low_level_config import LowLevelModel, write_low_level_model
from memrt.train.pi05.checkpoint import TOKENIZER, bos_token, load_model, norm_stats_path
from memrt.train.pi05.gemma import KeyValue, RotaryTable, rotary_table
from memrt.train.pi05.model import Pi05
from memrt.train.pi05.policy import runtime_model
from memrt.train.pi05.sampling import flow_times

OPSET = 20  # fp32 graphs for ONNX Runtime; TensorRT's fp16 graphs need 23

INPUTS: dict[str, tuple[str, ...]] = {
    "vision": ("image",),
    "prefix": ("embeddings", "positions"),
    "step": ("x", "modulation", "positions", "keys", "values"),
}
OUTPUTS: dict[str, tuple[str, ...]] = {"vision": ("tokens",), "prefix": ("keys", "values"), "step": ("velocity",)}


class VisionGraph(nn.Module):
    """One view uint8 [S, S, 3] → tokens float32 [1, tokens, width]."""

    def __init__(self, model: Pi05) -> None:
        super().__init__()
        self.vision_tower = model.paligemma_with_expert.paligemma.model.vision_tower
        self.multi_modal_projector = model.paligemma_with_expert.paligemma.model.multi_modal_projector

    def forward(self, image: Tensor) -> Tensor:
        """The same scaling as `preprocess.normalise_image`."""
        pixels = image.to(torch.float32)[None] / 127.5 - 1.0
        return self.multi_modal_projector(self.vision_tower(pixels))


class _BakedRotary(nn.Module):
    """Cosines and sines of all positions as constants: no engine has to compute them, in whatever precision."""

    cos: Tensor
    sin: Tensor

    def __init__(self, count: int, head_dim: int) -> None:
        super().__init__()
        table = rotary_table(torch.arange(count), head_dim)
        self.register_buffer("cos", table.cos, persistent=False)
        self.register_buffer("sin", table.sin, persistent=False)

    def forward(self, positions: Tensor) -> RotaryTable:
        return RotaryTable(self.cos[positions][None], self.sin[positions][None])


class PrefixGraph(nn.Module):
    """Embeddings [1, P, width] at positions int64 [P] → keys and values, each [layers, kv_heads, P, head_dim]."""

    def __init__(self, model: Pi05, positions: int) -> None:
        super().__init__()
        self.language_model = model.language_model
        self.rotary = _BakedRotary(positions, model.config.prefix.head_dim)

    def forward(self, embeddings: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """All positions are valid."""
        cache = self.language_model.run(embeddings, self.rotary(positions))
        keys, values = zip(*cache, strict=True)
        return torch.cat(keys), torch.cat(values)


class StepGraph(nn.Module):
    """x [1, H, d], modulation [norms, 3, width], positions int64 [H], keys and values → velocity [1, H, d]."""

    def __init__(self, model: Pi05, positions: int) -> None:
        super().__init__()
        self.action_in_proj, self.action_out_proj = model.action_in_proj, model.action_out_proj
        self.expert = model.expert
        self.rotary = _BakedRotary(positions, model.config.expert.head_dim)

    def forward(self, x: Tensor, modulation: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """One draw, no mask."""
        cache = [KeyValue(keys[layer : layer + 1], values[layer : layer + 1]) for layer in range(keys.shape[0])]
        hidden = self.expert.run(
            self.action_in_proj(x)[:, None], modulation[None, None], self.rotary(positions), cache, None
        )
        return self.action_out_proj(hidden)[:, 0]


def position_count(settings: LowLevelModel) -> int:
    """Positions that can occur: all views, the longest prompt, the action tokens."""
    return settings.max_views * settings.vision_tokens + settings.max_token_len + settings.horizon


def graphs(model: Pi05, settings: LowLevelModel) -> dict[str, nn.Module]:
    """The modules that are exported, by the name of their file."""
    count = position_count(settings)
    modules = {
        "vision": VisionGraph(model),
        "prefix": PrefixGraph(model, count),
        "step": StepGraph(model, count),
    }
    return {name: module.eval() for name, module in modules.items()}


@torch.no_grad()
def modulation_table(model: Pi05, steps: int) -> NDArray[np.float32]:
    """adaRMS (scale, shift, gate) of every norm at every flow time: [steps, 2·layers + 1, 3, expert width]."""
    return model.modulation(torch.tensor(flow_times(steps))).float().numpy()


@torch.no_grad()
def embedding_table(model: Pi05) -> NDArray[np.float32]:
    """Token embeddings [vocabulary, width], scaled by √width already."""
    ids = torch.arange(model.config.vocabulary)
    return np.ascontiguousarray(model.language_model.embed(ids).float().numpy())


def export_pi05(weights_dir: Path, out_dir: Path, *, denoise_steps: int | None = None) -> Pi05:
    """Write a checkpoint folder as the `ll` of a bundle: fp32 graphs (opset 20), tables, tokenizer, stats, config.

    Returns the network in PyTorch, the reference of the gates. `denoise_steps` defaults to the checkpoint's.
    """
    model = load_model(weights_dir)
    settings = runtime_model(model.config, bos=bos_token(weights_dir), denoise_steps=denoise_steps)
    write_low_level(model, settings, out_dir)
    shutil.copyfile(weights_dir / TOKENIZER, out_dir / "tokenizer.json")
    shutil.copyfile(norm_stats_path(weights_dir), out_dir / "norm_stats.json")
    return model


def write_low_level(model: Pi05, settings: LowLevelModel, out_dir: Path) -> None:
    """The files that follow from the network alone."""
    out_dir.mkdir(parents=True, exist_ok=True)
    shapes: dict[str, Any] = {"vision": None}
    length = torch.export.Dim("length", min=2, max=position_count(settings) - settings.horizon)
    shapes["prefix"] = ({1: length}, {0: length})
    shapes["step"] = (None, None, None, {2: length}, {2: length})
    for name, module in graphs(model, settings).items():
        _export(module, example(settings, name), out_dir / f"{name}.onnx", shapes=shapes[name])
    np.save(out_dir / "modulation.npy", modulation_table(model, settings.denoise_steps), allow_pickle=False)
    np.save(out_dir / "embed.npy", embedding_table(model), allow_pickle=False)
    write_low_level_model(settings, out_dir / "config.json")


def example(settings: LowLevelModel, name: str, tokens: int = 7) -> tuple[Tensor, ...]:
    """Inputs of the right shapes for the graph `name`, with `tokens` tokens in the prefix."""
    size = settings.image_size
    cache = torch.zeros(settings.layers, settings.kv_heads, tokens, settings.head_dim)
    examples: dict[str, tuple[Tensor, ...]] = {
        "vision": (torch.zeros(size, size, 3, dtype=torch.uint8),),
        "prefix": (torch.zeros(1, tokens, settings.width), torch.arange(tokens)),
        "step": (
            torch.zeros(1, settings.horizon, settings.action_dim),
            torch.zeros(settings.modulation_rows, 3, settings.expert_width),
            tokens + torch.arange(settings.horizon),
            cache,
            cache.clone(),
        ),
    }
    return examples[name]


def _export(module: nn.Module, inputs: tuple[Tensor, ...], path: Path, *, shapes: Any) -> None:
    with torch.no_grad():
        program = torch.onnx.export(
            module,
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(INPUTS[path.stem]),
            output_names=list(OUTPUTS[path.stem]),
            dynamic_shapes=shapes,
            optimize=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(path), external_data=False)
