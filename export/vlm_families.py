"""The VLM families that can be exported. A third one is one more file and one more entry here."""

from __future__ import annotations

from typing import Any

from torch import nn

from memrt.export.vlm_family import Family, Size
from memrt.export.vlm_qwen2_5 import QWEN2_5_VL
from memrt.export.vlm_qwen3 import QWEN3_VL
from memrt.runtime.errors import MemrtError

FAMILIES: dict[str, Family] = {family.model_type: family for family in (QWEN3_VL, QWEN2_5_VL)}


def family_of(config: Any) -> Family:
    """The family of a transformers config. Raises MemrtError for an architecture or setting that cannot be exported."""
    model_type = str(getattr(config, "model_type", None))
    family = FAMILIES.get(model_type)
    if family is None:
        raise MemrtError(
            "VLM architecture", expected=" or ".join(FAMILIES), found=model_type, fix="export a checkpoint of these"
        )
    text = config.text_config
    rope = text.rope_parameters
    settings = {
        "activation": (text.hidden_act, "silu"),
        "rotary embedding": (rope.get("rope_type", "default"), "default"),
        "sliding window": (bool(getattr(text, "use_sliding_window", False)), False),
        "frames per patch": (int(config.vision_config.temporal_patch_size), 2),
    }
    for name, (found, expected) in settings.items():
        if found != expected:
            raise MemrtError(
                f"{model_type} {name}", expected=expected, found=found, fix="export a checkpoint without this setting"
            )
    return family


def vision_graph(model: Any, image_size: Size) -> nn.Module:
    """The vision graph of a transformers model for images of (height, width) pixels."""
    return family_of(model.config).vision(model, image_size)
