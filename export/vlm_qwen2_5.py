"""Qwen2.5-VL's vision tower: attention in windows, over the whole image in a few blocks, gated MLPs, no deepstack.

Windows are squares of visual tokens; those at the right and lower edge may be smaller. The patches are put in the order
of their windows once, windows of equal size beside each other, so that a block attends within all windows of one size
at a time, without padding or mask. Held to transformers' forward by the tests and by the graph gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memrt.export.streaming.stages import Stages, exhaust
from memrt.export.vlm_family import Family, Size, StreamingUnit
from memrt.export.vlm_layers import Affine, RmsNorm, attend, rotate
from memrt.export.vlm_patches import AxialRotary, PatchEmbedding, PatchGrid
from memrt.runtime.errors import MemrtError

# OpenAI CLIP's, in Qwen2.5-VL's preprocessor_config.json.
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
MIN_PIXELS, MAX_PIXELS = 3_136, 12_845_056


@dataclass(frozen=True, slots=True)
class Windows:
    """`tokens` lists the visual tokens in window order; `groups` are (windows, patches of each), in this order."""

    tokens: tuple[int, ...]
    groups: tuple[tuple[int, int], ...]
    merge: int

    @staticmethod
    def of(settings: Any, grid: PatchGrid) -> Windows:
        """The windows of an image."""
        side = int(settings.window_size) // grid.merge // grid.patch
        rows, columns = grid.tokens
        windows = [
            [
                row * columns + column
                for row in range(top, min(top + side, rows))
                for column in range(left, min(left + side, columns))
            ]
            for top in range(0, rows, side)
            for left in range(0, columns, side)
        ]
        windows.sort(key=len, reverse=True)
        patches = [len(window) * grid.merge**2 for window in windows]
        groups = tuple((len(list(equal)), size) for size, equal in groupby(patches))
        return Windows(tuple(token for window in windows for token in window), groups, grid.merge)

    def patch_order(self) -> Tensor:
        """The patches in window order, int64 [patches]."""
        block = self.merge**2
        return (torch.tensor(self.tokens)[:, None] * block + torch.arange(block)).flatten()


class Gather(nn.Module):
    """Rows in another order."""

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        self.order = nn.Buffer(order)

    def forward(self, x: Tensor) -> Tensor:
        """[n, width] to [n, width]."""
        return x[self.order]


class PatchMerger(nn.Module):
    """2x2 patches to one token."""

    def __init__(self, merger: Any) -> None:
        super().__init__()
        self._joined = int(merger.hidden_size)
        self.norm, self.up, self.down = RmsNorm(merger.ln_q), Affine(merger.mlp[0]), Affine(merger.mlp[2])

    def forward(self, x: Tensor) -> Tensor:
        """[patches, width] to [patches / 4, decoder width]."""
        return self.down(F.gelu(self.up(self.norm(x).reshape(-1, self._joined))))


class VisionBlock(nn.Module):
    """One pre-norm transformer block; from one transformers block.

    `groups` are (windows, patches of each) within which patches attend to each other; one group of one window is full
    attention.
    """

    def __init__(self, block: Any, heads: int, groups: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self._heads, self._groups = heads, tuple(groups)
        self.norm1, self.norm2 = RmsNorm(block.norm1), RmsNorm(block.norm2)
        self.qkv, self.projection = Affine(block.attn.qkv), Affine(block.attn.proj)
        self.gate_up = Affine(block.mlp.gate_proj, block.mlp.up_proj)
        self.down = Affine(block.mlp.down_proj)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """[patches, width] to [patches, width], in window order."""
        patches, width = x.shape
        query, key, value = self.qkv(self.norm1(x)).view(patches, 3, self._heads, -1).unbind(1)
        query, key = (rotate(part, cos[:, None], sin[:, None]) for part in (query, key))
        x = x + self.projection(self._attend(query, key, value).reshape(patches, width))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)

    def _attend(self, *parts: Tensor) -> Tensor:
        """Query, key and value [patches, heads, dim] to the same shape."""
        mixed, start = [], 0
        for windows, size in self._groups:
            end = start + windows * size
            cut = (part[start:end].view(windows, size, self._heads, -1).transpose(1, 2) for part in parts)
            mixed.append(attend(*cut).transpose(1, 2).reshape(windows * size, self._heads, -1))
            start = end
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)


class VisionGraph(nn.Module):
    """image uint8 [height, width, 3] to `tokens` [visual tokens, width].

    `image_size` is (height, width), multiples of patch x merge. The image processor's work is part of the graph.
    """

    def __init__(self, model: Any, image_size: Size) -> None:
        super().__init__()
        visual, settings = model.model.visual, model.config.vision_config
        layout = _Layout(settings, image_size)
        self.rotary = layout.rotary()
        self.patches = layout.patches(visual.patch_embed.proj)
        self.arrange = layout.arrange()
        self.blocks = nn.ModuleList([layout.block(number, block) for number, block in enumerate(visual.blocks)])
        self.merger = PatchMerger(visual.merger)
        self.restore = layout.restore()

    def forward(self, image: Tensor) -> Tensor:
        """One frame's features."""
        return exhaust(self.stages(image))[0]

    def stages(self, image: Tensor) -> Stages:
        """`forward`, halting before every unit."""
        yield "rotary", image
        cos, sin = self.rotary()
        yield "patches", image
        x = self.patches(image)
        yield "arrange", x
        x = self.arrange(x)
        for number in range(len(self.blocks)):
            yield f"blocks.{number}", x
            x = self.blocks[number](x, cos, sin)
        yield "merger", x
        x = self.merger(x)
        yield "restore", x
        return (self.restore(x),)


class _Layout:
    """Builds the parts of a vision graph that depend on the image size."""

    def __init__(self, settings: Any, image_size: Size) -> None:
        if settings.hidden_act != "silu":
            raise MemrtError(
                "Qwen2.5-VL vision tower",
                expected="the activation silu",
                found=settings.hidden_act,
                fix="export a checkpoint of the published architecture",
            )
        self._settings, self._grid = settings, PatchGrid.of(settings, image_size)
        self._windows = Windows.of(settings, self._grid)

    def rotary(self) -> AxialRotary:
        return AxialRotary(self._settings, self._grid, self._windows.patch_order())

    def patches(self, projection: nn.Conv3d) -> PatchEmbedding:
        return PatchEmbedding(projection, self._grid, MEAN, DEVIATION)

    def arrange(self) -> Gather:
        return Gather(self._windows.patch_order())

    def restore(self) -> Gather:
        return Gather(torch.tensor(sorted(range(len(self._windows.tokens)), key=self._windows.tokens.__getitem__)))

    def block(self, number: int, block: Any) -> VisionBlock:
        whole = ((1, self._grid.rows * self._grid.columns),)
        full = number in self._settings.fullatt_block_indexes
        return VisionBlock(block, self._settings.num_heads, whole if full else self._windows.groups)


def _units(config: Any, image_size: Size, graph: str) -> list[StreamingUnit]:
    settings, visual = config.vision_config, "model.visual"
    layout = _Layout(settings, image_size)
    return [
        StreamingUnit(graph, "rotary.", (), layout.rotary),
        StreamingUnit(graph, "patches.", (f"{visual}.patch_embed.proj",), layout.patches),
        StreamingUnit(graph, "arrange.", (), layout.arrange),
        *(
            StreamingUnit(graph, f"blocks.{n}.", (f"{visual}.blocks.{n}",), partial(layout.block, n))
            for n in range(settings.depth)
        ),
        StreamingUnit(graph, "merger.", (f"{visual}.merger",), PatchMerger),
        StreamingUnit(graph, "restore.", (), layout.restore),
    ]


QWEN2_5_VL = Family(
    model_type="qwen2_5_vl",
    mean=MEAN,
    deviation=DEVIATION,
    min_pixels=MIN_PIXELS,
    max_pixels=MAX_PIXELS,
    mrope_layout="sectioned",
    vision_outputs=("tokens",),
    deepstack_layers=lambda config: 0,
    vision=VisionGraph,
    vision_units=_units,
)
