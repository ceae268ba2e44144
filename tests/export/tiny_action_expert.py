"""A π0.5 of a few thousand parameters, saved as a checkpoint folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from memrt.runtime.policy.preprocess import norm_stats_document
from memrt.train.low_level_tokenizer import BOS, build_tokenizer
from memrt.train.pi05.checkpoint import TOKENIZER, write_checkpoint
from memrt.train.pi05.config import tiny
from memrt.train.pi05.model import Pi05

IMAGE_SIZE, HORIZON = 32, 6  # of memrt.train.pi05.config.tiny


def write_tiny_pi05(folder: Path, texts: list[str], seed: int = 0) -> Path:
    """Write config, random weights, tokenizer and norm stats."""
    tokenizer = build_tokenizer(texts)
    config = tiny(tokenizer.get_vocab_size())
    # Small patches and a block more: most weights must be outside the patch embedding, as they are at any real size.
    config = replace(config, vision=replace(config.vision, patch_size=8, depth=3))
    torch.manual_seed(seed)
    model = Pi05(config)
    rng = np.random.default_rng(seed)
    stats = norm_stats_document(rng.normal(size=(200, 8)), rng.normal(size=(200, HORIZON, 8)))
    write_checkpoint(folder, config, model.state_dict(), bos=BOS, stats=stats)
    tokenizer.save(str(folder / TOKENIZER))
    return folder
