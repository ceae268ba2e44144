"""Random checkpoints of both VLM families, small in width and depth alone, as folders that transformers reads."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from memrt.train.text_tokenizer import reference_tokenizer, save_tokenizer

FAMILIES = ("qwen3_vl", "qwen2_5_vl")
WIDTH = 64
# As published with both families' checkpoints.
PROCESSORS: dict[str, dict[str, Any]] = {
    "qwen3_vl": {
        "size": {"shortest_edge": 65536, "longest_edge": 16777216},
        "patch_size": 16,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    },
    "qwen2_5_vl": {
        "min_pixels": 3136,
        "max_pixels": 12845056,
        "patch_size": 14,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    },
}


@functools.cache
def tokenizer() -> Tokenizer:
    return reference_tokenizer()


@functools.cache
def model(family: str) -> Any:
    """The fp32 model; its weights are spread out, so that answers depend on what is asked and shown."""
    torch.set_num_threads(1)
    torch.manual_seed(11)
    kind = Qwen3VLForConditionalGeneration if family == "qwen3_vl" else Qwen2_5_VLForConditionalGeneration
    built = kind._from_config(_config(family), attn_implementation="sdpa").float()
    generator = torch.Generator().manual_seed(12)
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            scale = 0.1 if "embed_tokens" in name else 0.15 if parameter.ndim > 1 else 0.05
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return built.eval()


def write_checkpoint(family: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads(model(family).config.to_json_string(use_diff=False))
    config["architectures"] = [type(model(family)).__name__]
    (folder / "config.json").write_text(json.dumps(config))
    processor = {"image_processor_type": "Qwen2VLImageProcessor", "merge_size": 2, "temporal_patch_size": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor | PROCESSORS[family]))
    weights = {name: tensor.contiguous() for name, tensor in model(family).state_dict().items()}
    if model(family).config.tie_word_embeddings:
        del weights["lm_head.weight"]
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    save_tokenizer(tokenizer(), folder)
    return folder


def picture(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """A random image of coarse blocks and fine noise, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 200, (-(-height // 20), -(-width // 20), 3))
    coarse = blocks.repeat(20, axis=0).repeat(20, axis=1)[:height, :width]
    return (coarse + rng.integers(0, 56, (height, width, 3))).astype(np.uint8)


def _config(family: str) -> Any:
    def token(text: str) -> int:
        found = tokenizer().token_to_id(text)
        assert found is not None
        return int(found)

    tokens = {
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
    }
    text: dict[str, Any] = {
        "vocab_size": tokenizer().get_vocab_size(),
        "hidden_size": WIDTH,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "bos_token_id": None,
        "eos_token_id": token("<|im_end|>"),
        "pad_token_id": token("<|endoftext|>"),
    }
    if family == "qwen3_vl":
        rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [6, 5, 5], "mrope_interleaved": True}
        return Qwen3VLConfig(
            text_config=text | {"head_dim": 32, "rope_parameters": rope},
            vision_config={
                "depth": 2,
                "hidden_size": 64,
                "intermediate_size": 96,
                "num_heads": 2,
                "out_hidden_size": WIDTH,
                "num_position_embeddings": 144,
                "deepstack_visual_indexes": [0, 1],
            },
            tie_word_embeddings=True,
            **tokens,
        )
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}
    return Qwen2_5_VLConfig(
        text_config=text | {"rope_parameters": rope},
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_heads": 2,
            "out_hidden_size": WIDTH,
            "fullatt_block_indexes": [1],
        },
        tie_word_embeddings=False,
        **tokens,
    )
