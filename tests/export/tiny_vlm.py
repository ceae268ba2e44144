"""A Qwen3-VL of a few thousand parameters with the reference tokenizer, saved as a checkpoint folder."""

from __future__ import annotations

from pathlib import Path

import torch

from memrt.train.high_level_model import build_model, high_level_config, save_model
from memrt.train.text_tokenizer import reference_tokenizer, save_tokenizer

IMAGE_SIZE = 64  # four visual tokens


def write_tiny_vlm(folder: Path, seed: int = 0) -> Path:
    """Write config, weights and tokenizer."""
    tokenizer = reference_tokenizer()
    config = high_level_config(tokenizer)
    config.text_config.update(
        {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
        | {"num_key_value_heads": 1}
    )
    config.vision_config.update(
        {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32}
        | {"deepstack_visual_indexes": [0]}
    )
    model = build_model(config, seed)
    with torch.no_grad():
        for parameter in model.parameters():  # transformers initialises so small that every answer is the same token
            if parameter.ndim > 1:
                parameter.mul_(4.0)
        model.model.visual.merger.linear_fc2.weight.mul_(20.0)  # the image must weigh in the answers
    save_model(model, folder)
    save_tokenizer(tokenizer, folder)
    return folder
