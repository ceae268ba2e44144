"""The reference low-level policy's tokenizer: one token per word, and one per integer 0..255.

A coordinate or a joint's bin is a single token, so the network never has to assemble a number from digits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from memrt.runtime.policy.preprocess import STATE_BINS
from memrt.sim.objects import COLOURS
from memrt.sim.tasks.base import NUMBERS, ORDINALS
from memrt.train.pi05.checkpoint import EMBEDDING, TOKENIZER, WEIGHTS, load_tensors, rename
from memrt.train.pi05.model import Pi05

PAD, BOS, UNKNOWN = "<pad>", "<bos>", "<unk>"
SPECIAL = (PAD, BOS, UNKNOWN)
PUNCTUATION = (":", ",", ";", "<", ">", ".", "\n", '"', "'", "-")
# Known whatever was recorded: a run that goes on with more data keeps its tokenizer.
KNOWN_WORDS = ("task", "state", "action", *COLOURS, *NUMBERS, *ORDINALS)
FIRST_NUMBER = len(SPECIAL)

# Wavelengths of the number code, in units of the value: from twice the range of the numbers down to four.
LONGEST_WAVE, OCTAVES = 2 * STATE_BINS, 7


def build_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """A word-level tokenizer of lower-cased `texts`; the same texts in any order give the same file."""
    words = {word for text in texts for word in re.findall(r"[a-z]+", text.lower())} | set(KNOWN_WORDS)
    tokens = [*SPECIAL, *(str(value) for value in range(STATE_BINS)), *PUNCTUATION, *sorted(words)]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    pattern = Regex(r"[0-9]+|[A-Za-z]+|\n|[^\sA-Za-z0-9]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, "removed", invert=True)
    return tokenizer


@torch.no_grad()
def initialise_embedding(model: Pi05) -> None:
    """Give the number tokens a smooth code of their value, the others unit noise (both after the √width scaling).

    Neighbouring numbers begin as neighbours: a state or a coordinate never seen in training is interpolated from step
    0 on, where random embeddings would need every one of the 256 values to be learnt by itself.
    """
    weight = model.language_model.embed_tokens.weight
    width = weight.shape[1]
    weight.normal_(0.0, width**-0.5)
    value = torch.arange(STATE_BINS, dtype=torch.float64)[:, None]
    octave = torch.arange(width // 2, dtype=torch.float64) * OCTAVES / max(1, width // 2 - 1)
    angle = 2.0 * math.pi * value / LONGEST_WAVE * 2.0**octave
    code = torch.cat((angle.sin(), angle.cos()), dim=1) * math.sqrt(2.0 / width)
    weight[FIRST_NUMBER : FIRST_NUMBER + STATE_BINS] = code.to(weight.dtype)


@torch.no_grad()
def begin_with(model: Pi05, tokenizer: Tokenizer, folder: Path) -> None:
    """Take over the weights of a checkpoint folder; tokens that its tokenizer does not know keep their embedding."""
    tensors = rename(load_file(folder / WEIGHTS))
    known = Tokenizer.from_file(str(folder / TOKENIZER)).get_vocab()
    embedding = model.language_model.embed_tokens.weight.clone()
    for token, row in tokenizer.get_vocab().items():
        if token in known:
            embedding[row] = tensors[EMBEDDING][known[token]]
    load_tensors(model, {**tensors, EMBEDDING: embedding}, folder / WEIGHTS)
