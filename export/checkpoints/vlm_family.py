"""The two families of VLM that can be exported: their configurations, tensor names and shapes."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias, cast, get_args

import torch
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from memrt.export.checkpoints.source import Shape
from memrt.runtime.errors import MemrtError

Family = Literal["qwen3_vl", "qwen2_5_vl"]
VlmModelConfig: TypeAlias = Qwen3VLConfig | Qwen2_5_VLConfig
CONFIGS: dict[Family, type[VlmModelConfig]] = {"qwen3_vl": Qwen3VLConfig, "qwen2_5_vl": Qwen2_5_VLConfig}
MODELS = {"qwen3_vl": Qwen3VLForConditionalGeneration, "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration}
HEAD, EMBEDDING = "lm_head.weight", "model.language_model.embed_tokens.weight"

# Layouts on the hub, older first: `visual.…` and `model.layers.…` (before transformers 4.52), `language_model.model.…`
# (some fine-tuning tools), and today's `model.visual.…` and `model.language_model.…`.
_RENAMES = (
    (re.compile(r"^language_model\.lm_head\."), "lm_head."),
    (re.compile(r"^(?:model\.)?visual\."), "model.visual."),
    (re.compile(r"^language_model\.model\."), "model.language_model."),
    (re.compile(r"^model\.(?=(?:layers|embed_tokens|norm)\.)"), "model.language_model."),
)
# Tables that old versions saved and every version computes.
_COMPUTED = re.compile(r"\.inv_freq$|\.position_ids$")


def family_of(model_type: object, what: str) -> Family:
    """The family of a config.json's `model_type`. Raises MemrtError for others."""
    if model_type not in get_args(Family):
        raise MemrtError(
            what,
            expected=f"model_type {' or '.join(get_args(Family))}",
            found=model_type,
            fix="export a Qwen3-VL or Qwen2.5-VL checkpoint",
        )
    return cast("Family", model_type)


def canonical(name: str) -> str | None:
    """A stored name under transformers' present names; None for tables that are computed."""
    if _COMPUTED.search(name):
        return None
    for pattern, replacement in _RENAMES:
        name, changed = pattern.subn(replacement, name)
        if changed:
            break
    return name


def tensor_shapes(family: Family, config: VlmModelConfig) -> dict[str, Shape]:
    """Every tensor of the model and its shape, the output head included even where it is tied; no memory is used."""
    with torch.device("meta"):
        model = MODELS[family](config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def is_tied(config: VlmModelConfig) -> bool:
    """Whether the output head is the embedding table."""
    return bool(config.tie_word_embeddings)
