"""Small π0.5 checkpoints in every layout, with the heads that openpi's networks have."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from memrt.runtime.policy.preprocess import norm_stats_document
from memrt.train.low_level_tokenizer import build_tokenizer
from memrt.train.pi05.config import Pi05Config, VisionConfig, tiny
from memrt.train.pi05.model import Pi05

STATE_DIM, ACTION_DIM = 8, 7


def openpi_config() -> Pi05Config:
    """The tests' network, but for 16 vision heads, as SigLIP has, and openpi's name and limits."""
    vision = VisionConfig(image_size=32, patch_size=16, width=32, depth=2, heads=16, mlp_width=24)
    return replace(tiny(vocabulary=300), name="pi05", vision=vision, max_token_len=200)


def random_state(config: Pi05Config, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {name: torch.randn_like(tensor) for name, tensor in Pi05(config).state_dict().items()}


def norm_stats() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return norm_stats_document(rng.normal(size=(50, STATE_DIM)), rng.normal(size=(50, 6, ACTION_DIM)))


def write_tokenizer(folder: Path) -> None:
    build_tokenizer(["pick up the red cube"]).save(str(folder / "tokenizer.json"))


def write_openpi(folder: Path, state: dict[str, Tensor], config: Pi05Config, asset: str = "robot") -> Path:
    """As openpi's converter writes it: tied head stored, sizes left to the weights."""
    (folder / "assets" / asset).mkdir(parents=True)
    head = "paligemma_with_expert.paligemma.lm_head.weight"
    embedding = "paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight"
    save_file(state | {head: state[embedding].clone()}, folder / "model.safetensors")
    document = {
        "action_dim": config.action_dim,
        "action_horizon": config.horizon,
        "paligemma_variant": "gemma_2b",
        "action_expert_variant": "gemma_300m",
        "precision": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(document))
    (folder / "assets" / asset / "norm_stats.json").write_text(json.dumps(norm_stats()))
    return folder


def write_lerobot(folder: Path, state: dict[str, Tensor], config: Pi05Config, mode: str = "QUANTILES") -> Path:
    """As LeRobot writes it: a prefix, its own config keys, statistics in the processors' state files."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({f"model.{name}": tensor for name, tensor in state.items()}, folder / "model.safetensors")
    document = {
        "type": "pi05",
        "chunk_size": config.horizon,
        "n_action_steps": config.horizon,
        "max_action_dim": config.action_dim,
        "max_state_dim": 32,
        "num_inference_steps": 5,
        "tokenizer_max_length": 180,
        "paligemma_variant": "gemma_2b",
    }
    (folder / "config.json").write_text(json.dumps(document))
    stats = norm_stats()["norm_stats"]
    flat = {
        f"{feature}.{key}": torch.tensor(values, dtype=torch.float32)
        for name, feature in (("state", "observation.state"), ("actions", "action"))
        for key, values in stats[name].items()
    }
    norm_map = {"VISUAL": "IDENTITY", "STATE": mode, "ACTION": mode}
    for processor, registry, number in (
        ("policy_preprocessor", "normalizer_processor", 2),
        ("policy_postprocessor", "unnormalizer_processor", 0),
    ):
        file = f"{processor}_step_{number}_{registry}.safetensors"
        step = {"registry_name": registry, "config": {"eps": 1e-8, "norm_map": norm_map}, "state_file": file}
        others = [{"registry_name": "to_batch_processor", "config": {}}]
        (folder / f"{processor}.json").write_text(json.dumps({"name": processor, "steps": [*others, step]}))
        save_file(flat, folder / file)
    return folder


def jax_tree(config: Pi05Config, seed: int = 0) -> dict[str, np.ndarray]:
    """Random arrays with the names and axes of openpi's JAX parameters, slashes between the keys."""
    rng = np.random.default_rng(seed)
    v, p, e = config.vision, config.prefix, config.expert
    heads, vision_dim = v.heads, v.width // v.heads
    block = "PaliGemma/img/Transformer/encoderblock"
    attention = f"{block}/MultiHeadDotProductAttention_0"
    shapes: dict[str, tuple[int, ...]] = {
        "PaliGemma/img/embedding/kernel": (v.patch_size, v.patch_size, 3, v.width),
        "PaliGemma/img/embedding/bias": (v.width,),
        "PaliGemma/img/pos_embedding": (1, v.tokens, v.width),
        "PaliGemma/img/Transformer/encoder_norm/scale": (v.width,),
        "PaliGemma/img/Transformer/encoder_norm/bias": (v.width,),
        "PaliGemma/img/head/kernel": (v.width, p.width),
        "PaliGemma/img/head/bias": (p.width,),
        f"{block}/MlpBlock_0/Dense_0/kernel": (v.depth, v.width, v.mlp_width),
        f"{block}/MlpBlock_0/Dense_0/bias": (v.depth, v.mlp_width),
        f"{block}/MlpBlock_0/Dense_1/kernel": (v.depth, v.mlp_width, v.width),
        f"{block}/MlpBlock_0/Dense_1/bias": (v.depth, v.width),
        f"{attention}/out/kernel": (v.depth, heads, vision_dim, v.width),
        f"{attention}/out/bias": (v.depth, v.width),
        "PaliGemma/llm/embedder/input_embedding": (config.vocabulary, p.width),
        "PaliGemma/llm/final_norm/scale": (p.width,),
        "PaliGemma/llm/final_norm_1/Dense_0/kernel": (e.width, 3 * e.width),
        "PaliGemma/llm/final_norm_1/Dense_0/bias": (3 * e.width,),
    }
    for name in ("query", "key", "value"):
        shapes[f"{attention}/{name}/kernel"] = (v.depth, v.width, heads, vision_dim)
        shapes[f"{attention}/{name}/bias"] = (v.depth, heads, vision_dim)
    for number in (0, 1):
        for part in ("scale", "bias"):
            shapes[f"{block}/LayerNorm_{number}/{part}"] = (v.depth, v.width)
    for suffix, g in (("", p), ("_1", e)):
        layers = "PaliGemma/llm/layers"
        shapes[f"{layers}/attn/q_einsum{suffix}/w"] = (g.depth, g.heads, g.width, g.head_dim)
        shapes[f"{layers}/attn/kv_einsum{suffix}/w"] = (g.depth, 2, g.kv_heads, g.width, g.head_dim)
        shapes[f"{layers}/attn/attn_vec_einsum{suffix}/w"] = (g.depth, g.heads, g.head_dim, g.width)
        shapes[f"{layers}/mlp{suffix}/gating_einsum"] = (g.depth, 2, g.width, g.mlp_width)
        shapes[f"{layers}/mlp{suffix}/linear"] = (g.depth, g.mlp_width, g.width)
    for norm in ("pre_attention_norm", "pre_ffw_norm"):
        shapes[f"PaliGemma/llm/layers/{norm}/scale"] = (p.depth, p.width)
        shapes[f"PaliGemma/llm/layers/{norm}_1/Dense_0/kernel"] = (e.depth, e.width, 3 * e.width)
        shapes[f"PaliGemma/llm/layers/{norm}_1/Dense_0/bias"] = (e.depth, 3 * e.width)
    linear = {"action_in_proj": (config.action_dim, e.width), "action_out_proj": (e.width, config.action_dim)}
    linear |= {"time_mlp_in": (e.width, e.width), "time_mlp_out": (e.width, e.width)}
    for name, shape in linear.items():
        shapes[f"{name}/kernel"], shapes[f"{name}/bias"] = shape, shape[1:]
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def nested(flat: dict[str, Any], leaf: bool) -> dict[str, Any]:
    """Names with slashes to dicts in dicts; with `leaf` every array lies under a further key `value`, as nnx saves."""
    tree: dict[str, Any] = {}
    for name, array in flat.items():
        *path, last = name.split("/")
        place = tree
        for key in path:
            place = place.setdefault(key, {})
        place[last] = {"value": array} if leaf else array
    return tree
