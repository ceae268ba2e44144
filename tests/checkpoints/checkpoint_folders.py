"""Small checkpoint folders, as the outside tools write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor, nn

from memrt.export.checkpoints.random_vlm import VLMS
from memrt.export.checkpoints.source import Shape
from memrt.export.checkpoints.vlm_family import MODELS
from memrt.train.text_tokenizer import reference_tokenizer

FAMILIES = {"qwen3_vl": "qwen3-vl-tiny", "qwen2_5_vl": "qwen2.5-vl-tiny"}


class TensorSource:
    """A `WeightSource` over a dict."""

    def __init__(self, tensors: dict[str, Tensor], label: str = "test") -> None:
        self.label = label
        self.tensors = tensors
        self.reads: list[str] = []

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self.tensors))

    def shape(self, name: str) -> Shape:
        return tuple(self.tensors[name].shape)

    def read(self, name: str) -> Tensor:
        self.reads.append(name)
        return self.tensors[name]

    def fingerprint(self) -> dict[str, str]:
        return {"test": self.label}


def tiny_vlm(family: str, seed: int = 0) -> nn.Module:
    """transformers' own model with its own initialisation, fp32."""
    torch.manual_seed(seed)
    return MODELS[family](VLMS[FAMILIES[family]][1]()).eval()


def write_vlm(folder: Path, family: str, seed: int = 0, **save: Any) -> nn.Module:
    """Save a tiny model as transformers does; `save` goes to save_pretrained."""
    model = tiny_vlm(family, seed)
    model.save_pretrained(str(folder), **save)
    reference_tokenizer().save(str(folder / "tokenizer.json"))
    return model


def write_adapter(folder: Path, model: nn.Module, seed: int = 1, **settings: Any) -> nn.Module:
    """Train nothing, but fill every matrix, save with peft; returns the model that peft merges (`model` is changed)."""
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": targets} | settings)
    adapted = peft.get_peft_model(model, config)
    torch.manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.2)
    adapted.save_pretrained(str(folder))
    return adapted.merge_and_unload(safe_merge=True)
