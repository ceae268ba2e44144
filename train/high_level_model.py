"""The reference high-level policy: Qwen3-VL's own architecture at small widths.

transformers' `Qwen3VLForConditionalGeneration` with everything that makes the real model hard to deploy kept:
a vision tower with learned and rotary positions, a 2x2 patch merger, deepstack features added into the first
decoder layers, interleaved multimodal rotary positions, grouped-query attention with query/key norms, tied
embeddings. Only the widths and depths are small, so that two CPU cores can train it from nothing.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

IMAGE_SIZE = 256  # front camera, not resized (SPECS 1.1)
PATCH = 16  # Qwen3-VL
MERGE = 2  # Qwen3-VL
TEMPORAL_PATCH = 2  # Qwen3-VL: an image counts as two equal frames
GRID = IMAGE_SIZE // PATCH  # patches per side
SIDE = GRID // MERGE  # visual tokens per side
VISUAL_TOKENS = SIDE**2  # 64, as in the paper's setting
WEIGHTS = "model.safetensors"
POSITION_SCALE = 2.5  # of the waves the vision tower's positions start from; patch embeddings are as large
TIED = "lm_head.weight"  # shares storage with the embedding, as in Qwen3-VL-4B: not written twice


def high_level_config(tokenizer: Tokenizer) -> Qwen3VLConfig:
    """The small Qwen3-VL configuration for `tokenizer`'s vocabulary.

    Head width 32 instead of 128, so the rotary sections shrink from (24, 20, 20) to (6, 5, 5); the rotary base
    is 10 000 because the longest prompt is a few hundred tokens, not 256 000.
    """

    def token(text: str) -> int:
        found = tokenizer.token_to_id(text)
        if found is None:
            raise ValueError(f"the tokenizer lacks {text}")
        return int(found)

    return Qwen3VLConfig(
        text_config={
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
            "tie_word_embeddings": True,
            "pad_token_id": token("<|endoftext|>"),
            "bos_token_id": None,
            "eos_token_id": token("<|im_end|>"),
        },
        vision_config={
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_heads": 4,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": TEMPORAL_PATCH,
            "out_hidden_size": 192,
            "num_position_embeddings": GRID * GRID,
            "deepstack_visual_indexes": [1, 2],
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def position_waves(side: int, width: int) -> torch.Tensor:
    """Sines and cosines of row and column, fp32 [side * side, width], from half a wave per image up to eight."""
    waves = 0.5 * 16 ** torch.linspace(0, 1, width // 4)
    angle = 2 * math.pi / side * torch.arange(side)[:, None] * waves
    along = torch.cat([angle.sin(), angle.cos()], dim=-1)
    return torch.cat([along.repeat_interleave(side, 0), along.repeat(side, 1)], dim=-1)


def build_model(config: Qwen3VLConfig, seed: int) -> Qwen3VLForConditionalGeneration:
    """A freshly initialised fp32 model; the same seed gives the same weights.

    The vision tower's learned positions start as waves: from noise, the columns of a table that looks the same
    everywhere would take longer to learn than everything else.
    """
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    positions = model.model.visual.pos_embed.weight
    with torch.no_grad():
        positions.add_(POSITION_SCALE * position_waves(math.isqrt(positions.shape[0]), positions.shape[1]))
    model.tie_weights()
    return model.float()


def save_model(model: Qwen3VLForConditionalGeneration, folder: Path) -> None:
    """Write `config.json`, `preprocessor_config.json` and `model.safetensors` the way transformers reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False))
    config["architectures"] = ["Qwen3VLForConditionalGeneration"]
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    processor = json.dumps(image_processor_config(), indent=2, sort_keys=True)
    (folder / "preprocessor_config.json").write_text(processor + "\n")
    weights = {name: tensor.detach().contiguous().cpu() for name, tensor in model.state_dict().items() if name != TIED}
    save_file(weights, str(folder / WEIGHTS), metadata={"format": "pt"})


def image_processor_config() -> dict[str, Any]:
    """What transformers' Qwen2-VL image processor has to do for this model: no resizing, pixels to [-1, 1]."""
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "do_resize": False,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "merge_size": MERGE,
        "patch_size": PATCH,
        "temporal_patch_size": TEMPORAL_PATCH,
    }


def load_model(folder: Path) -> Qwen3VLForConditionalGeneration:
    """The fp32 model of `folder`, in evaluation mode."""
    config = Qwen3VLConfig.from_pretrained(str(folder))
    model = build_model(config, seed=0)
    missing, unexpected = model.load_state_dict(load_file(str(folder / WEIGHTS)), strict=False)
    if set(missing) - {TIED} or unexpected:
        raise ValueError(f"{folder}: missing {sorted(missing)[:4]}, unexpected {sorted(unexpected)[:4]}")
    model.tie_weights()
    return model.eval()
