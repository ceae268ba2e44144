"""What differs between VLM families, as one value per family, and the units in which their weights are streamed.

A family is one file that defines a `Family`; `vlm_families.py` lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

Size = tuple[int, int]  # height and width in pixels


@dataclass(frozen=True, slots=True)
class StreamingUnit:
    """A part of a graph that can be built, quantised and run without the rest.

    `graph` is the graph's file name without suffix. `prefix` leads the unit's names in the graph's state_dict, such as
    `blocks.3.`; without its last dot it is the name of the graph's submodule. `sources` are paths of transformers
    submodules of the whole model; `build` takes those modules, in this order, and returns the part, whose state_dict
    holds the graph's names after the prefix. A unit without sources holds constants that depend on the configuration
    alone.
    """

    graph: str
    prefix: str
    sources: tuple[str, ...]
    build: Callable[..., nn.Module]


@dataclass(frozen=True, slots=True)
class Family:
    """One VLM architecture. `mean` and `deviation` are the image processor's, of pixels in 0..1 by channel (RGB).

    `min_pixels` and `max_pixels` are those of the family's published image processor. `vision` builds the vision graph
    from a transformers model and an image size; `vision_units` lists its units from the transformers config, an image
    size and the graph's name.
    """

    model_type: str
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    min_pixels: int
    max_pixels: int
    mrope_layout: Literal["interleaved", "sectioned"]
    vision_outputs: tuple[str, ...]
    deepstack_layers: Callable[[Any], int]
    vision: Callable[[Any, Size], nn.Module]
    vision_units: Callable[[Any, Size, str], list[StreamingUnit]]
