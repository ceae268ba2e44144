"""Moves a model to a tokenizer that knows more words, keeping what it has learned about the ones it knew."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import Qwen3VLForConditionalGeneration

from memrt.train.high_level_model import build_model, high_level_config, load_model

EMBEDDING = "model.language_model.embed_tokens.weight"


def load_with_tokenizer(folder: Path, tokenizer: Tokenizer) -> Qwen3VLForConditionalGeneration:
    """The model of `folder`, with `tokenizer`'s vocabulary instead of its own.

    A token that both tokenizers know keeps its embedding. A new one starts as the mean of what its text used to be
    encoded as, so that a word that has become whole means at first what its pieces meant.
    """
    model = load_model(folder)
    former = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if former.get_vocab() == tokenizer.get_vocab():
        return model
    grown = build_model(high_level_config(tokenizer), seed=0)
    state = {name: value for name, value in model.state_dict().items() if name in grown.state_dict()}
    state[EMBEDDING] = _embedding(state[EMBEDDING], former, tokenizer)
    state["lm_head.weight"] = state[EMBEDDING]
    grown.load_state_dict(state)
    grown.tie_weights()
    return grown.eval()


def _embedding(rows: torch.Tensor, former: Tokenizer, tokenizer: Tokenizer) -> torch.Tensor:
    known = former.get_vocab()
    grown = torch.empty(tokenizer.get_vocab_size(), rows.shape[1])
    for token, index in tokenizer.get_vocab().items():
        pieces = [known[token]] if token in known else former.encode(tokenizer.decode([index])).ids
        grown[index] = rows[pieces].mean(0)
    return grown
