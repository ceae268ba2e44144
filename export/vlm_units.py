"""A VLM as a list of small parts, so that a checkpoint too large for memory can be exported one part at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from memrt.export.vlm_decoder import DecoderLayer, attention_mask, head_dim
from memrt.export.vlm_families import family_of
from memrt.export.vlm_family import Size, State, StreamingUnit
from memrt.export.vlm_layers import Affine, RmsNorm


def streaming_units(model: Any, image_sizes: Sequence[Size]) -> list[StreamingUnit]:
    """All units of the vision graphs for `image_sizes` (height, width), then those of the decoder, in running order.

    `model` is a transformers model, of which only the config is read. Every entry of every graph's state_dict belongs
    to exactly one unit. A state starts with the graph's inputs by name; the last unit of a graph leaves its outputs.
    With several image sizes, each graph has its own units of the same sources. A source that the checkpoint ties to
    the embedding table is named as the embedding table.
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
            StreamingUnit("decoder", f"layers.{n}.", (f"{root}.layers.{n}",), layer, partial(_run_layer, n))
            for n in range(text.num_hidden_layers)
        ),
        StreamingUnit("decoder", "norm.", (f"{root}.norm",), RmsNorm, _normalise),
        StreamingUnit("decoder", "head.", (f"{root}.embed_tokens" if tied else "lm_head",), Affine, _finish),
    ]


def _run_layer(number: int, module: nn.Module, state: State) -> State:
    x = state.get("x", state["embeddings"])
    keys, values = state["keys"][number], state["values"][number]
    mask = state.get("mask")
    if mask is None:
        mask = attention_mask(x.shape[0], keys.shape[1], state["past_length"])
    x, key, value = module(x, state["cos"], state["sin"], keys, values, mask)
    deepstack = state.get("deepstack")
    if deepstack is not None and number < deepstack.shape[0]:
        x = x + deepstack[number]
    rows = {"new": [*state.get("new", []), (key, value)]}
    return {**state, **rows, "x": x, "mask": mask}


def _normalise(module: nn.Module, state: State) -> State:
    return {**state, "x": module(state["x"][-1:])}


def _finish(module: nn.Module, state: State) -> State:
    keys, values = zip(*state["new"], strict=True)
    return {"logits": module(state["x"]), "new_keys": torch.stack(keys), "new_values": torch.stack(values)}
