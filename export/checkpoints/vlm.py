"""Opens a VLM: a folder from the hub or `random:<name>`, an adapter merged into it, a blend with the pretrained."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memrt.export.checkpoints.adapted import AdaptedSource
from memrt.export.checkpoints.adapter import AdapterFolder, refusal
from memrt.export.checkpoints.blended import BlendedSource
from memrt.export.checkpoints.qwen_tokenizer import qwen_tokenizer
from memrt.export.checkpoints.random_adapter import open_random_adapter
from memrt.export.checkpoints.random_vlm import VLMS, random_vlm
from memrt.export.checkpoints.random_weights import parse_random
from memrt.export.checkpoints.renamed import RenamedSource
from memrt.export.checkpoints.safetensors_folder import SafetensorsFolder
from memrt.export.checkpoints.source import Shape, WeightSource, check_tensors
from memrt.export.checkpoints.vlm_family import (
    CONFIGS,
    EMBEDDING,
    HEAD,
    Family,
    VlmModelConfig,
    canonical,
    family_of,
    is_tied,
    tensor_shapes,
)
from memrt.runtime.errors import MemrtError

CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class VlmCheckpoint:
    """An open VLM. `source` serves the names of transformers' state dict, `lm_head.weight` always among them."""

    family: Family
    config: VlmModelConfig
    source: WeightSource
    tokenizer: bytes
    """The content of tokenizer.json."""


def open_vlm(
    checkpoint: str | Path,
    adapter: str | Path | None = None,
    *,
    pretrained: str | Path | None = None,
    fine_tuned_share: float | None = None,
) -> VlmCheckpoint:
    """Open `checkpoint`, a Hugging Face folder or `random:<name>[:seed]`, without reading its weights.

    `adapter` is a folder that peft saved, or `random:r<rank>[:seed]`; its LoRA is merged as tensors are read. With
    `pretrained` and `fine_tuned_share` α (both or neither) the weights are (1 − α) · pretrained + α · fine-tuned, the
    adapter counting as fine-tuning. Raises MemrtError for everything that cannot be exported: missing, truncated or
    foreign files, an unknown architecture, wrong shapes, an adapter of another base.
    """
    opened = _open_base(checkpoint)
    source = opened.source
    if adapter is not None:
        source = _adapt(opened, adapter)
    if (pretrained is None) != (fine_tuned_share is None):
        raise MemrtError(
            f"checkpoint {checkpoint}",
            expected="pretrained weights and the fine-tuned share together",
            found="only one of them",
            fix="give both, MemER's share is 0.8, or neither",
        )
    if pretrained is not None and fine_tuned_share is not None:
        source = BlendedSource(_open_base(pretrained).source, source, fine_tuned_share)
    return VlmCheckpoint(opened.family, opened.config, source, opened.tokenizer)


def _adapt(base: VlmCheckpoint, adapter: str | Path) -> WeightSource:
    adapted = AdaptedSource(
        base.source, open_random_adapter(adapter, base.source) or AdapterFolder(Path(adapter).expanduser())
    )
    if is_tied(base.config) and {HEAD, EMBEDDING} & set(adapted.adapted_names()):
        raise refusal(
            adapter,
            "an adapter that leaves the tied embedding and head alone",
            "one that changes the head only",
            "train it on the attention and MLP projections",
        )
    return adapted


def _open_base(checkpoint: str | Path) -> VlmCheckpoint:
    parsed = parse_random(checkpoint)
    if parsed is not None:
        return _open_random(*parsed)
    folder = Path(checkpoint).expanduser()
    family, config, shapes = _read_config(folder)
    stored = SafetensorsFolder(folder)
    origin = {new: old for old in stored.names() if (new := canonical(old)) is not None}
    source = RenamedSource(stored, _tie(origin, config))
    check_tensors(source, shapes, f"{family} at the sizes of its {CONFIG}")
    for name in source.names():
        if not (tensor := stored.stored(origin[name])).is_float:
            raise MemrtError(
                f"checkpoint {folder}",
                expected=f"{name} as fp32, fp16 or bf16",
                found=tensor.dtype,
                fix="export the checkpoint from before it was quantised; memrt quantises it itself",
            )
    return VlmCheckpoint(family, config, source, qwen_tokenizer(folder))


def _open_random(name: str, seed: int) -> VlmCheckpoint:
    if name not in VLMS:
        raise MemrtError(
            f"checkpoint random:{name}", expected=f"one of {', '.join(VLMS)}", found=name, fix="choose one of these"
        )
    family, config, weights, tokenizer = random_vlm(name, seed)
    origin = _tie({name: name for name in weights.names()}, config)
    return VlmCheckpoint(family, config, RenamedSource(weights, origin), tokenizer)


def _tie(origin: dict[str, str], config: VlmModelConfig) -> dict[str, str]:
    """A tied table may be stored under either of its names, or under both: then the embedding is the one in use."""
    if is_tied(config):
        stored = origin.get(EMBEDDING) or origin.get(HEAD)
        if stored is not None:
            origin[EMBEDDING] = origin[HEAD] = stored
    return origin


def _read_config(folder: Path) -> tuple[Family, VlmModelConfig, dict[str, Shape]]:
    """The configuration, and the tensors that a model built from it has."""
    try:
        document: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        model_type = document.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise MemrtError(
            f"checkpoint {folder}",
            expected=f"a readable {CONFIG}",
            found=error,
            fix="name the folder that holds config.json, tokenizer and safetensors files",
        ) from error
    family = family_of(model_type, f"checkpoint {folder}")
    try:
        config = CONFIGS[family].from_dict(document)
        return family, config, tensor_shapes(family, config)
    except Exception as error:  # whatever transformers raises for values that do not go together
        raise MemrtError(
            f"checkpoint {folder}", expected=f"a {family} {CONFIG}", found=error, fix="copy the config.json again"
        ) from error
