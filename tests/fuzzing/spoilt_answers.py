"""Answers as a VLM might spoil them: cut, repeated, mixed with another, tags and quotes lost or doubled."""

import random
from collections.abc import Sequence

PIECES = (
    *("<mem>", "</mem>", "<spatial_mem>", "</spatial_mem>", "<image>", "<mem", "mem>", "<", ">", "</"),
    *('"', "\\", "{", "}", "[", "]", ":", ",", "```", "```json\n", "null", "true", "NaN", "1e999", "-1", "99"),
    *("current_subtask", "keyframe_positions", "\n", " ", "\t", "\r", "\0", "\u2028", "é", "方", "\ud800", "🤖"),
    *("<|im_end|>", "<|image_pad|>", "<120, 88>", "{goal}", "{history}", "%s", "9" * 5000, "[" * 2000),
)


def spoilt(rng: random.Random, texts: Sequence[str]) -> str:
    """One of `texts`, spoilt one to five times; now and then something else altogether."""
    if rng.random() < 0.02:
        return "".join(rng.choice(PIECES) for _ in range(rng.randrange(12)))
    text = rng.choice(texts)
    for _ in range(rng.randint(1, 5)):
        text = _spoil(rng, text, rng.choice(texts))
    return text


def _spoil(rng: random.Random, text: str, other: str) -> str:
    at, length = rng.randrange(len(text) + 1), rng.randint(1, 30)
    before, after = text[:at], text[at:]
    start = rng.randrange(len(other))
    return rng.choice(
        (
            before,
            after,
            before + after[length:],
            before + after[:length] * rng.randint(2, 4) + after[length:],
            before + rng.choice(PIECES) + after,
            before + other[start : start + length] + after,
            before + chr(rng.randrange(0x110000)) + after[1:],
        )
    )
