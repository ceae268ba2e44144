"""π0.5's tensor names: openpi's PyTorch ones are canonical, and every known layout is brought to them."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch

from memrt.export.checkpoints.source import Shape
from memrt.train.pi05.checkpoint import EMBEDDING, LEROBOT_PREFIX, TIED, UNUSED
from memrt.train.pi05.config import Pi05Config
from memrt.train.pi05.model import Pi05

PALIGEMMA = "paligemma_with_expert.paligemma."
# The wrappers inside PaliGemma moved between transformers versions; older ones first.
_RENAMES = (
    (re.compile(r"^language_model\.lm_head\."), "lm_head."),
    (re.compile(r"^language_model\.model\."), "model.language_model."),
    (re.compile(r"^(?=(vision_tower|multi_modal_projector)\.)"), "model."),
    (re.compile(r"^model\.vision_tower\.(?!vision_model\.)"), "model.vision_tower.vision_model."),
)
_COMPUTED = re.compile(r"\.inv_freq$|\.position_ids$|^(\w+\.)*(un)?normalize_\w+\.")


def canonical_names(stored: Iterable[str]) -> dict[str, str]:
    """Canonical name → stored name, for the tensors that π0.5 uses. The tied embedding may have either name."""
    found: dict[str, str] = {}
    for name in stored:
        new = _canonical(name)
        if not _COMPUTED.search(new):
            found[new] = name
    if EMBEDDING not in found and TIED in found:
        found[EMBEDDING] = found[TIED]
    return {new: name for new, name in found.items() if new not in UNUSED}


def tensor_shapes(config: Pi05Config) -> dict[str, Shape]:
    """Every tensor of the network and its shape; no memory is used."""
    with torch.device("meta"):
        network = Pi05(config)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _canonical(name: str) -> str:
    name = name.removeprefix(LEROBOT_PREFIX)
    if not name.startswith(PALIGEMMA):
        return name
    inner = name.removeprefix(PALIGEMMA)
    for pattern, replacement in _RENAMES:
        inner = pattern.sub(replacement, inner)
    return PALIGEMMA + inner
