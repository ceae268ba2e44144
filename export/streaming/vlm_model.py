"""What a streamed export takes from a VLM's checkpoint as a whole: its empty model, and the table on the host."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray

from memrt.export.checkpoints.vlm import VlmCheckpoint
from memrt.export.checkpoints.vlm_family import EMBEDDING

Array = NDArray[Any]


def embedding_table(checkpoint: VlmCheckpoint) -> Array:
    """The embedding table as the host keeps it: float16 for 16-bit checkpoints, which halves its 1.6 GB.

    bf16 values of ordinary size are exact in float16; those below 6e-5 keep an absolute error of 3e-8.
    """
    table = checkpoint.source.read(EMBEDDING)
    return table.float().numpy() if table.dtype == torch.float32 else table.to(torch.float16).numpy()


def empty_model(checkpoint: VlmCheckpoint) -> Any:
    """transformers' model of the checkpoint, to be built under fake tensors or on the meta device."""
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_config(checkpoint.config, attn_implementation="sdpa").eval()
