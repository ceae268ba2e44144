"""A VLM as a list of small parts, so that a checkpoint too large for memory can be exported one part at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from memrt.export.vlm_decoder import DecoderLayer, head_dim
from memrt.export.vlm_families import family_of
from memrt.export.vlm_family import Size, StreamingUnit
from memrt.export.vlm_layers import Affine, RmsNorm


def streaming_units(model: Any, image_sizes: Sequence[Size]) -> list[StreamingUnit]:
    """All units of the vision graphs for `image_sizes` (height, width), then those of the decoder, in running order.

    `model` is a transformers model, of which only the config is read. Every entry of every graph's state_dict belongs
    to exactly one unit, and the units of a graph come in the order of its `stages`. With several image sizes, each
    graph has its own units of the same sources. A head that is tied to the embedding table names it as its source.
    """
    config, family = model.config, family_of(model.config)
    names = ["vision"] if len(image_sizes) == 1 else [f"vision_{height}x{width}" for height, width in image_sizes]
    vision = [
        unit for size, name in zip(image_sizes, names, strict=True) for unit in family.vision_units(config, size, name)
    ]
    return vision + decoder_units(config)


def decoder_units(config: Any) -> list[StreamingUnit]:
    """The decoder's units in running order: layers, norm, head."""
    text = config.text_config
    layer = partial(DecoderLayer, kv_heads=int(text.num_key_value_heads), head_dim=head_dim(text))
    root = "model.language_model"
    tied = bool(config.tie_word_embeddings)
    return [
        *(
            StreamingUnit("decoder", f"layers.{n}.", (f"{root}.layers.{n}",), layer)
            for n in range(text.num_hidden_layers)
        ),
        StreamingUnit("decoder", "norm.", (f"{root}.norm",), RmsNorm),
        StreamingUnit("decoder", "head.", (f"{root}.embed_tokens" if tied else "lm_head",), Affine),
    ]
