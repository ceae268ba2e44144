"""A tiny random Qwen3-VL shared by the high-level tests: real architecture, real tokenizer, two layers each."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import Qwen3VLForConditionalGeneration

from memrt.runtime.policy.chat import render_chat
from memrt.train.high_level_model import build_model, high_level_config, save_model
from memrt.train.text_tokenizer import reference_tokenizer, save_tokenizer


@functools.cache
def tokenizer() -> Tokenizer:
    return reference_tokenizer()


@functools.cache
def model() -> Qwen3VLForConditionalGeneration:
    """Random weights, spread out so that greedy decoding is not a single repeated token."""
    torch.set_num_threads(1)
    config = high_level_config(tokenizer())
    config.text_config.update({"num_hidden_layers": 3, "hidden_size": 64, "intermediate_size": 96})
    config.text_config.update({"num_attention_heads": 4, "num_key_value_heads": 2})
    config.vision_config.update({"depth": 3, "hidden_size": 64, "intermediate_size": 96, "num_heads": 2})
    config.vision_config.update({"out_hidden_size": 64, "deepstack_visual_indexes": [0, 1]})
    built = build_model(config, seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            scale = 0.02 if "embed_tokens" in name else 0.2 if parameter.ndim > 1 else 0.05
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)
    return built.eval()


def write_checkpoint(folder: Path) -> Path:
    save_model(model(), folder)
    save_tokenizer(tokenizer(), folder)
    return folder


def image(seed: int) -> NDArray[np.uint8]:
    """A blocky random image uint8 [256, 256, 3]."""
    small = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return np.ascontiguousarray(small.repeat(16, axis=0).repeat(16, axis=1))


def qwen_pixels(picture: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
    """pixel_values and image_grid_thw of transformers' own image processor."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    processor = Qwen2VLImageProcessorPil(
        patch_size=16,
        merge_size=2,
        temporal_patch_size=2,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        size={"shortest_edge": 65536, "longest_edge": 16777216},
    )
    features = processor(images=[picture], return_tensors="pt")
    return features["pixel_values"], features["image_grid_thw"]


def transformers_answer(system: str, user: str, seeds: Sequence[int], budget: int) -> str:
    """What transformers' own processor order, forward and greedy search answer to images of `seeds`."""
    features = [qwen_pixels(image(seed)) for seed in seeds]
    prompt = render_chat(system, user, [64] * len(seeds))
    ids = torch.tensor([tokenizer().encode(prompt, add_special_tokens=False).ids])
    stops = [tokenizer().token_to_id(token) for token in ("<|im_end|>", "<|endoftext|>")]
    with torch.no_grad():
        output = model().generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == model().config.image_token_id).int(),
            pixel_values=torch.cat([pixels for pixels, _ in features]),
            image_grid_thw=torch.cat([grid for _, grid in features]),
            max_new_tokens=budget,
            do_sample=False,
            eos_token_id=stops,
            pad_token_id=stops[1],
        )
    reply = [token for token in output[0, ids.shape[1] :].tolist() if token not in stops]
    return str(tokenizer().decode(reply, skip_special_tokens=False))


def assert_same(ours: object, theirs: object, tolerance: float = 1e-5) -> None:
    """Equal up to fp32 rounding: the largest difference against the largest value."""
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    assert a.shape == b.shape
    assert np.abs(a - b).max() <= tolerance * np.abs(b).max()
