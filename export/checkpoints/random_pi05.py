"""`random:pi05` and `random:pi05-tiny`: initialisation, tokenizer and norm stats of a π0.5 that nobody trained."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from memrt.export.checkpoints.pi05_names import tensor_shapes
from memrt.export.checkpoints.random_weights import RandomSource, Spread
from memrt.export.checkpoints.source import Shape
from memrt.train.low_level_tokenizer import BOS, build_tokenizer
from memrt.train.pi05.config import Pi05Config, pi05, tiny
from memrt.train.task_language import corpus

NORM_VARIATION = 0.05  # trained norm weights scatter around their start (1; in Gemma, which adds 1 itself, 0)
BIAS_DEVIATION = 0.02
# adaRMS projections start at zero in training; here scale, shift and gate are large enough that a wrong one is seen.
MODULATION_BIAS_DEVIATION = 0.3
_RESIDUAL = re.compile(r"layers\.\d+\.(self_attn\.(o_proj|out_proj)|mlp\.(down_proj|fc2))\.weight$")
_LAYER_NORM = re.compile(r"(layer_norm[12]|post_layernorm)\.weight$")
_GEMMA_NORM = re.compile(r"(input_layernorm|post_attention_layernorm|norm)\.weight$")

# A Franka in radians, and a gripper opening in metres: 1 % and 99 % quantiles of the state, then of delta actions.
_STATE = (
    (-1.2, -0.6, -1.0, -2.7, -0.8, 1.2, -1.4, 0.0),
    (1.2, 1.2, 1.0, -0.9, 0.8, 3.2, 1.9, 0.08),
)
_ACTIONS = (
    (-0.25, -0.30, -0.25, -0.30, -0.30, -0.30, -0.40, 0.0),
    (0.25, 0.30, 0.25, 0.30, 0.30, 0.30, 0.40, 1.0),
)


def random_pi05_config() -> Pi05Config:
    """The released sizes, horizon 16, prompts of up to 200 tokens."""
    return pi05(horizon=16)


def random_pi05_tiny_config() -> Pi05Config:
    """The tests' sizes, with the vocabulary of the tokenizer below."""
    return tiny(vocabulary=build_tokenizer(corpus()).get_vocab_size())


PI05S: dict[str, Callable[[], Pi05Config]] = {"pi05": random_pi05_config, "pi05-tiny": random_pi05_tiny_config}


def random_pi05(name: str, seed: int) -> tuple[Pi05Config, RandomSource, bytes, str, dict[str, Any]]:
    """Configuration, weights, tokenizer.json, BOS token and norm stats (7 joints and a gripper) of one of `PI05S`."""
    config = PI05S[name]()
    spread = initialisation(config)
    tokenizer = build_tokenizer(corpus()).to_str().encode()
    return config, RandomSource(name, seed, tensor_shapes(config), spread), tokenizer, BOS, random_norm_stats()


def initialisation(config: Pi05Config) -> Spread:
    """(mean, deviation) by name: 1 / √inputs, divided by √(2 · layers) where a residual stream is written to."""

    def spread(name: str, shape: Shape) -> tuple[float, float]:
        if _LAYER_NORM.search(name):
            return 1.0, NORM_VARIATION
        if _GEMMA_NORM.search(name):
            return 0.0, NORM_VARIATION
        if name.endswith(".dense.bias"):
            return 0.0, MODULATION_BIAS_DEVIATION
        if len(shape) == 1:
            return 0.0, BIAS_DEVIATION
        deviation = math.prod(shape[1:]) ** -0.5
        if _RESIDUAL.search(name):
            deviation /= math.sqrt(2 * (config.vision.depth if "vision_tower" in name else config.prefix.depth))
        return 0.0, deviation

    return spread


def random_norm_stats() -> dict[str, Any]:
    """openpi's norm_stats.json for 8 dimensions."""
    document: dict[str, Any] = {}
    for name, (q01, q99) in (("state", _STATE), ("actions", _ACTIONS)):
        low, high = np.asarray(q01), np.asarray(q99)
        document[name] = {
            "mean": ((low + high) / 2).tolist(),
            "std": ((high - low) / 4.65).tolist(),  # of a normal distribution with these quantiles
            "q01": low.tolist(),
            "q99": high.tolist(),
        }
    return {"norm_stats": document}
