"""A tiny π0.5 whose every weight matters."""

from __future__ import annotations

import torch

from memrt.train.low_level_tokenizer import initialise_embedding
from memrt.train.pi05.config import tiny
from memrt.train.pi05.model import Pi05


def random_model(vocabulary: int, seed: int = 0) -> Pi05:
    """Weights of unit scale everywhere, the zero-initialised ones of norms included: a zero would hide a mistake."""
    torch.manual_seed(seed)
    model = Pi05(tiny(vocabulary))
    initialise_embedding(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()
