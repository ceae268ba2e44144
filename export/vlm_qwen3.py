"""Qwen3-VL's vision tower: learned and rotary positions, full attention, and features tapped for the decoder.

Held to transformers' forward by the tests and by the graph gate.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memrt.export.streaming.stages import Stages, exhaust
from memrt.export.vlm_family import Family, Size, StreamingUnit
from memrt.export.vlm_layers import Affine, LayerNorm, attend, rotate
from memrt.export.vlm_patches import AxialRotary, PatchEmbedding, PatchGrid, resampled_positions
from memrt.runtime.errors import MemrtError

# Qwen3-VL's preprocessor_config.json.
MEAN = DEVIATION = (0.5, 0.5, 0.5)
MIN_PIXELS, MAX_PIXELS = 65_536, 16_777_216


class PatchMerger(nn.Module):
    """2x2 patches to one token. Deepstack mergers normalise after joining the patches, the last merger before."""

    def __init__(self, merger: Any) -> None:
        super().__init__()
        self._joined = int(merger.hidden_size)
        self._after = bool(merger.use_postshuffle_norm)
        self.norm = LayerNorm(merger.norm)
        self.up, self.down = Affine(merger.linear_fc1), Affine(merger.linear_fc2)

    def forward(self, x: Tensor) -> Tensor:
        """[patches, width] to [patches / 4, decoder width]."""
        x = self.norm(x.reshape(-1, self._joined)) if self._after else self.norm(x).reshape(-1, self._joined)
        return self.down(F.gelu(self.up(x)))


class VisionBlock(nn.Module):
    """One pre-norm transformer block over all patches of a frame; from one transformers block."""

    def __init__(self, block: Any, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.norm1, self.norm2 = LayerNorm(block.norm1), LayerNorm(block.norm2)
        self.qkv, self.projection = Affine(block.attn.qkv), Affine(block.attn.proj)
        self.up, self.down = Affine(block.mlp.linear_fc1), Affine(block.mlp.linear_fc2)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """[patches, width] to [patches, width]."""
        patches, width = x.shape
        query, key, value = self.qkv(self.norm1(x)).view(patches, 3, self._heads, -1).permute(1, 2, 0, 3).unbind(0)
        mixed = attend(rotate(query, cos, sin), rotate(key, cos, sin), value)
        x = x + self.projection(mixed.transpose(0, 1).reshape(patches, width))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class VisionGraph(nn.Module):
    """image uint8 [height, width, 3] to `tokens` [visual tokens, width] and `deepstack` [layers, visual tokens, width].

    `image_size` is (height, width), multiples of patch x merge. The image processor's work is part of the graph.
    """

    def __init__(self, model: Any, image_size: Size) -> None:
        super().__init__()
        visual, settings = model.model.visual, model.config.vision_config
        grid = _grid(settings, image_size)
        self.rotary = AxialRotary(settings, grid)
        self.patches = _patches(grid)(visual.patch_embed.proj, visual.pos_embed)
        self.blocks = nn.ModuleList([VisionBlock(block, settings.num_heads) for block in visual.blocks])
        self._tapped = list(settings.deepstack_visual_indexes)
        self.deepstack_mergers = nn.ModuleList([PatchMerger(merger) for merger in visual.deepstack_merger_list])
        self.merger = PatchMerger(visual.merger)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """One frame's features."""
        tokens, deepstack = exhaust(self.stages(image))
        return tokens, deepstack

    def stages(self, image: Tensor) -> Stages:
        """`forward`, halting before every unit."""
        yield "rotary", image
        cos, sin = self.rotary()
        yield "patches", image
        x = self.patches(image)
        features: list[Tensor] = []
        for number in range(len(self.blocks)):
            yield f"blocks.{number}", x
            x = self.blocks[number](x, cos, sin)
            if number in self._tapped:
                index = self._tapped.index(number)
                yield f"deepstack_mergers.{index}", x
                features.append(self.deepstack_mergers[index](x))
        yield "merger", x
        return self.merger(x), torch.stack(features)


def _grid(settings: Any, image_size: Size) -> PatchGrid:
    if settings.hidden_act != "gelu_pytorch_tanh":
        raise MemrtError(
            "Qwen3-VL vision tower",
            expected="the activation gelu_pytorch_tanh",
            found=settings.hidden_act,
            fix="export a checkpoint of the published architecture",
        )
    return PatchGrid.of(settings, image_size)


def _patches(grid: PatchGrid) -> Any:
    def build(projection: nn.Conv3d, table: nn.Embedding) -> PatchEmbedding:
        return PatchEmbedding(projection, grid, MEAN, DEVIATION, resampled_positions(table, grid))

    return build


def _units(config: Any, image_size: Size, graph: str) -> list[StreamingUnit]:
    settings = config.vision_config
    grid, heads, tapped = _grid(settings, image_size), settings.num_heads, list(settings.deepstack_visual_indexes)
    visual = "model.visual"
    units = [
        StreamingUnit(graph, "rotary.", (), partial(AxialRotary, settings, grid)),
        StreamingUnit(graph, "patches.", (f"{visual}.patch_embed.proj", f"{visual}.pos_embed"), _patches(grid)),
    ]
    for number in range(settings.depth):
        path = f"{visual}.blocks.{number}"
        units.append(StreamingUnit(graph, f"blocks.{number}.", (path,), partial(VisionBlock, heads=heads)))
        if number in tapped:
            index = tapped.index(number)
            path = f"{visual}.deepstack_merger_list.{index}"
            units.append(StreamingUnit(graph, f"deepstack_mergers.{index}.", (path,), PatchMerger))
    units.append(StreamingUnit(graph, "merger.", (f"{visual}.merger",), PatchMerger))
    return units


QWEN3_VL = Family(
    model_type="qwen3_vl",
    mean=MEAN,
    deviation=DEVIATION,
    min_pixels=MIN_PIXELS,
    max_pixels=MAX_PIXELS,
    mrope_layout="interleaved",
    vision_outputs=("tokens", "deepstack"),
    deepstack_layers=lambda config: len(config.vision_config.deepstack_visual_indexes),
    vision=VisionGraph,
    vision_units=_units,
)
