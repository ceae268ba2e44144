"""The units of π0.5's graphs: which piece of a checkpoint each one is built from.

A real checkpoint is never in memory as a whole: a streaming export loads one submodule of the training network, builds
the unit from it, and finds the values of the graph's weights in its state_dict.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from memrt.export.graph_parts import Affine, LayerNorm
from memrt.export.pi05_graphs import position_count
from memrt.export.pi05_layers import (
    ExpertLayer,
    LastPrefixLayer,
    PatchEmbedding,
    PositionEmbedding,
    PrefixLayer,
    Rotary,
    VisionBlock,
)
from memrt.export.vlm_family import StreamingUnit
from memrt.runtime.policy.low_level_config import LowLevelModel
from memrt.train.pi05.config import Pi05Config

PALIGEMMA = "paligemma_with_expert.paligemma.model"
TOWER = f"{PALIGEMMA}.vision_tower.vision_model"
EXPERT = "paligemma_with_expert.gemma_expert.model"


def streaming_units(config: Pi05Config, settings: LowLevelModel, *, step_rtc: bool = False) -> list[StreamingUnit]:
    """All units, graph by graph, in the order in which the graph calls them (`stages`).

    `sources` are paths of submodules of `Pi05`. Every entry of every graph's state_dict belongs to exactly one unit.
    `step_rtc` has units like those of `step`, with the same values.
    """
    found = [*_vision(config), *_prefix(config, settings), *_step(config, settings, "step")]
    return [*found, *_step(config, settings, "step_rtc")] if step_rtc else found


def _vision(config: Pi05Config) -> list[StreamingUnit]:
    def unit(prefix: str, source: str, build: Callable[..., nn.Module]) -> StreamingUnit:
        return StreamingUnit("vision", prefix, (source,), build)

    return [
        unit("patch_embedding.", f"{TOWER}.embeddings.patch_embedding", PatchEmbedding),
        unit("position_embedding.", f"{TOWER}.embeddings.position_embedding", PositionEmbedding),
        *(unit(f"blocks.{n}.", f"{TOWER}.encoder.layers.{n}", VisionBlock) for n in range(config.vision.depth)),
        unit("norm.", f"{TOWER}.post_layernorm", LayerNorm),
        unit("projector.", f"{PALIGEMMA}.multi_modal_projector.linear", Affine),
    ]


def _prefix(config: Pi05Config, settings: LowLevelModel) -> list[StreamingUnit]:
    stack, last = config.prefix, config.prefix.depth - 1
    layers = [
        StreamingUnit(
            "prefix",
            f"layers.{n}.",
            (f"{PALIGEMMA}.language_model.layers.{n}",),
            partial(LastPrefixLayer if n == last else PrefixLayer, config=stack),
        )
        for n in range(stack.depth)
    ]
    return [_rotary("prefix", settings), *layers]


def _step(config: Pi05Config, settings: LowLevelModel, graph: str) -> list[StreamingUnit]:
    build = partial(ExpertLayer, config=config.expert)
    return [
        _rotary(graph, settings),
        StreamingUnit(graph, "action_in.", ("action_in_proj",), Affine),
        *(StreamingUnit(graph, f"layers.{n}.", (f"{EXPERT}.layers.{n}",), build) for n in range(config.expert.depth)),
        StreamingUnit(graph, "action_out.", ("action_out_proj",), Affine),
    ]


def _rotary(graph: str, settings: LowLevelModel) -> StreamingUnit:
    return StreamingUnit(graph, "rotary.", (), partial(Rotary, position_count(settings), settings.head_dim))
