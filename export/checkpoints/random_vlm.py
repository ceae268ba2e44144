"""`random:qwen3-vl-4b`, `random:qwen2.5-vl-7b` and their tiny siblings: configurations, initialisation, tokenizer."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

from tokenizers import Tokenizer
from transformers import Qwen2_5_VLConfig, Qwen3VLConfig

from memrt.export.checkpoints.random_weights import RandomSource, Spread
from memrt.export.checkpoints.source import Shape
from memrt.export.checkpoints.vlm_family import EMBEDDING, HEAD, Family, VlmModelConfig, is_tied, tensor_shapes
from memrt.train.text_tokenizer import reference_tokenizer

FIRST_CONTROL_TOKEN = 151643  # Qwen's <|endoftext|>; the others follow in the order of CONTROL_TOKENS
STANDARD_DEVIATION = 0.02  # both families' initializer_range
NORM_VARIATION = 0.05  # trained norm weights scatter; all-one norms would hide an error in their place
# Projections that write into the residual stream: text attention and MLP, vision attention and MLP of both families.
_RESIDUAL = re.compile(r"(layers|blocks)\.\d+\..*(o_proj|down_proj|attn\.proj|mlp\.linear_fc2)\.weight$")
_NORM = re.compile(r"(norm|norm1|norm2|layernorm|q_norm|k_norm|ln_q)\.weight$")


def qwen3_vl_4b() -> Qwen3VLConfig:
    """The sizes of Qwen3-VL-4B-Instruct."""
    return Qwen3VLConfig(
        text_config={
            "vocab_size": 151936,
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 262144,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5_000_000.0,
                "mrope_section": [24, 20, 20],
                "mrope_interleaved": True,
            },
            "tie_word_embeddings": True,
            "bos_token_id": 151643,
            "eos_token_id": 151645,
        },
        vision_config={
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_heads": 16,
            "patch_size": 16,
            "out_hidden_size": 2560,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [5, 11, 17],
        },
        tie_word_embeddings=True,
    )


def qwen2_5_vl_7b() -> Qwen2_5_VLConfig:
    """The sizes of Qwen2.5-VL-7B-Instruct."""
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "max_position_embeddings": 128000,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]},
            "bos_token_id": 151643,
            "eos_token_id": 151645,
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "out_hidden_size": 3584,
            "tokens_per_second": 2,
        },
        tie_word_embeddings=False,
    )


def qwen3_vl_tiny() -> Qwen3VLConfig:
    """Every part of Qwen3-VL, nothing larger than a test needs; the reference tokenizer's vocabulary."""
    return Qwen3VLConfig(
        text_config={
            "vocab_size": len(_vocabulary()),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
            "tie_word_embeddings": True,
            **_special_ids("eos_token_id"),
        },
        vision_config={
            "depth": 4,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_heads": 4,
            "patch_size": 16,
            "out_hidden_size": 64,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 2],
        },
        tie_word_embeddings=True,
        **_special_ids("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"),
    )


def qwen2_5_vl_tiny() -> Qwen2_5_VLConfig:
    """Every part of Qwen2.5-VL (window and full attention included), nothing larger than a test needs."""
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(_vocabulary()),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]},
            "bos_token_id": None,
            **_special_ids("eos_token_id"),
        },
        vision_config={
            "depth": 4,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_heads": 4,
            "patch_size": 14,
            "window_size": 56,
            "fullatt_block_indexes": [1, 3],
            "out_hidden_size": 64,
            "tokens_per_second": 2,
        },
        tie_word_embeddings=False,
        **_special_ids("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"),
    )


VLMS: dict[str, tuple[Family, Callable[[], VlmModelConfig]]] = {
    "qwen3-vl-4b": ("qwen3_vl", qwen3_vl_4b),
    "qwen2.5-vl-7b": ("qwen2_5_vl", qwen2_5_vl_7b),
    "qwen3-vl-tiny": ("qwen3_vl", qwen3_vl_tiny),
    "qwen2.5-vl-tiny": ("qwen2_5_vl", qwen2_5_vl_tiny),
}


def random_vlm(name: str, seed: int) -> tuple[Family, VlmModelConfig, RandomSource, bytes]:
    """Family, configuration, weights and tokenizer.json of one of `VLMS`. A tied head is not among the weights."""
    family, build = VLMS[name]
    config = build()
    shapes = tensor_shapes(family, config)
    if is_tied(config):
        del shapes[HEAD]
    text, vision = cast("Any", config.text_config), cast("Any", config.vision_config)  # no dicts once they are built
    spread = initialisation(text.num_hidden_layers, vision.depth)
    return family, config, RandomSource(name, seed, shapes, spread), random_tokenizer(name)


def initialisation(text_layers: int, vision_layers: int) -> Spread:
    """(mean, deviation) by name: 0.02, or 1 / √inputs where that is larger, so that tiny models answer at all.

    Projections back into the residual stream are divided by √(2 · layers), so that its size does not grow with depth.
    """

    def spread(name: str, shape: Shape) -> tuple[float, float]:
        if _NORM.search(name):
            return 1.0, NORM_VARIATION
        if len(shape) == 1:
            return 0.0, STANDARD_DEVIATION
        if name == EMBEDDING:
            # A stream that begins as small as the families' initialisers make it is drowned by the first layer, and a
            # model that forgets its input tells nothing about rounding errors.
            return 0.0, 1.0
        deviation = max(STANDARD_DEVIATION, math.prod(shape[1:]) ** -0.5)
        if _RESIDUAL.search(name):
            deviation /= math.sqrt(2 * (vision_layers if "visual" in name else text_layers))
        return 0.0, deviation

    return spread


def random_tokenizer(name: str) -> bytes:
    """A byte-level tokenizer.json: the reference tokenizer, for full sizes with its control tokens at Qwen's ids.

    The ids between the trained vocabulary and the control tokens stand for nothing.
    """
    document: dict[str, Any] = json.loads(_trained())
    if not name.endswith("-tiny"):
        first = min(token["id"] for token in document["added_tokens"])
        shift = FIRST_CONTROL_TOKEN - first
        vocabulary = document["model"]["vocab"]
        for token in document["added_tokens"]:
            token["id"] += shift
            vocabulary.pop(token["content"], None)
        # A token that the model does not know gets the next free id, whatever is written beside it.
        vocabulary |= {token["content"]: token["id"] for token in document["added_tokens"]}
    return (json.dumps(document, ensure_ascii=False) + "\n").encode()


def _special_ids(*keys: str) -> dict[str, Any]:
    tokens = {
        "eos_token_id": "<|im_end|>",
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {key: _vocabulary()[tokens[key]] for key in keys}


@lru_cache(maxsize=1)
def _trained() -> str:
    """The reference tokenizer's tokenizer.json; training it takes a tenth of a second."""
    return str(reference_tokenizer().to_str())


@lru_cache(maxsize=1)
def _vocabulary() -> dict[str, int]:
    return dict(Tokenizer.from_str(_trained()).get_vocab())
