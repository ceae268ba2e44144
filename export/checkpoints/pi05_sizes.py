"""The sizes of a π0.5 checkpoint: from its config.json where they are given, else from its tensors' shapes."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from memrt.export.checkpoints.source import Shape, WeightSource
from memrt.runtime.errors import MemrtError
from memrt.train.pi05.checkpoint import EMBEDDING
from memrt.train.pi05.config import GemmaConfig, Pi05Config, VisionConfig

CONFIG = "config.json"
TOWER = "paligemma_with_expert.paligemma.model.vision_tower.vision_model."
PREFIX = "paligemma_with_expert.paligemma.model.language_model."
EXPERT = "paligemma_with_expert.gemma_expert.model."
VISION_HEADS = 16  # SigLIP So400m/14, the only tower openpi builds; heads leave no trace in the shapes
KV_HEADS = 1  # every Gemma that openpi builds
MAX_TOKEN_LEN = 200  # openpi's and LeRobot's default for π0.5


def read_document(folder: Path) -> dict[str, Any]:
    """The checkpoint's config.json; empty where there is none (openpi's JAX checkpoints)."""
    path = folder / CONFIG
    if not path.is_file():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _refusal(folder, f"a readable {CONFIG}", error, "copy it again") from error
    if not isinstance(document, dict):
        raise _refusal(folder, f"an object in {CONFIG}", type(document).__name__, "copy it again")
    if document.get("type", "pi05") != "pi05":
        raise _refusal(folder, "a π0.5 policy (type pi05)", f"type {document['type']}", "export a π0.5 checkpoint")
    return document


def pi05_config(folder: Path, document: dict[str, Any], source: WeightSource) -> Pi05Config:
    """The sizes of the checkpoint in `folder`, whose tensors `source` holds under canonical names.

    `document` is its config.json: ours (`model`), LeRobot's (`chunk_size`, …) or openpi's (`action_horizon`, …). The
    horizon is in no tensor's shape, so it must be given. Raises MemrtError when it is not, when config and tensors
    disagree, and for π0 (whose expert has no adaptive norms).
    """
    if "model" in document:
        return Pi05Config.from_dict(document["model"])
    shapes = _Shapes(folder, source)
    action_dim = shapes["action_in_proj.weight"][1]
    given = document.get("max_action_dim", document.get("action_dim", action_dim))
    if given != action_dim:
        found = f"{action_dim} in action_in_proj"
        raise _refusal(folder, f"{given} action dimensions, as {CONFIG} says", found, "use the config of these weights")
    horizon = document.get("chunk_size", document.get("action_horizon"))
    if not isinstance(horizon, int) or horizon < 1:
        raise _refusal(
            folder,
            f"action_horizon in {CONFIG} (the weights do not tell it)",
            horizon,
            f'write {{"action_horizon": H}} with the H of the training config into {folder.name}/{CONFIG}',
        )
    return Pi05Config(
        name="pi05",
        vision=_vision(shapes),
        prefix=_gemma(shapes, PREFIX),
        expert=_gemma(shapes, EXPERT),
        vocabulary=shapes[EMBEDDING][0],
        horizon=horizon,
        action_dim=action_dim,
        max_token_len=int(document.get("tokenizer_max_length", document.get("max_token_len", MAX_TOKEN_LEN))),
        denoise_steps=int(document.get("num_inference_steps", 10)),
    )


class _Shapes:
    """Shapes by name, refusing with a reason where a tensor is absent."""

    def __init__(self, folder: Path, source: WeightSource) -> None:
        self._folder, self._source = folder, source
        self._names = set(source.names())
        if f"{EXPERT}norm.weight" in self._names:
            raise _refusal(folder, "π0.5 (adaptive norms in the expert)", "π0", "export a π0.5 checkpoint")

    def __getitem__(self, name: str) -> Shape:
        if name not in self._names:
            raise _refusal(self._folder, f"the tensor {name}", "none of that name", "copy the checkpoint again")
        return self._source.shape(name)

    def layers(self, prefix: str) -> int:
        pattern = re.compile(rf"{re.escape(prefix)}layers\.(\d+)\.")
        return 1 + max((int(match[1]) for name in self._names if (match := pattern.match(name))), default=-1)


def _vision(shapes: _Shapes) -> VisionConfig:
    width, _, patch, _ = shapes[f"{TOWER}embeddings.patch_embedding.weight"]
    return VisionConfig(
        image_size=math.isqrt(shapes[f"{TOWER}embeddings.position_embedding.weight"][0]) * patch,
        patch_size=patch,
        width=width,
        depth=shapes.layers(f"{TOWER}encoder."),
        heads=VISION_HEADS,
        mlp_width=shapes[f"{TOWER}encoder.layers.0.mlp.fc1.weight"][0],
    )


def _gemma(shapes: _Shapes, prefix: str) -> GemmaConfig:
    queries, width = shapes[f"{prefix}layers.0.self_attn.q_proj.weight"]
    head_dim = shapes[f"{prefix}layers.0.self_attn.k_proj.weight"][0] // KV_HEADS
    return GemmaConfig(
        width=width,
        depth=shapes.layers(prefix),
        mlp_width=shapes[f"{prefix}layers.0.mlp.gate_proj.weight"][0],
        heads=queries // head_dim,
        kv_heads=KV_HEADS,
        head_dim=head_dim,
    )


def _refusal(folder: Path, expected: object, found: object, fix: str) -> MemrtError:
    return MemrtError(f"checkpoint {folder}", expected=expected, found=found, fix=fix)
