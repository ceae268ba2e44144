"""π0.5 as three graphs of fixed meaning: `VisionGraph` (one view), `PrefixGraph` (all views and the prompt) and
`StepGraph` (one denoise step; `RtcStepGraph` is its variant with a flow time per token).

Each graph is a row of units (`patch_embedding`, `layers.3`, …) that are called in order and built from one submodule of
the training network each, so that a graph can be exported, quantised and checked unit by unit: `stages` halts before
every one of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memrt.export.graph_parts import Affine, LayerNorm
from memrt.export.pi05_layers import (
    AdaptiveNorm,
    ExpertLayer,
    LastPrefixLayer,
    Modulation,
    PatchEmbedding,
    PositionEmbedding,
    PrefixLayer,
    Rotary,
    VisionBlock,
)
from memrt.export.streaming.stages import Stages, exhaust
from memrt.train.pi05.model import Pi05


class VisionGraph(nn.Module):
    """`image` uint8 [S, S, 3] → `tokens` [1, tokens, prefix width]."""

    def __init__(self, model: Pi05) -> None:
        super().__init__()
        paligemma = model.paligemma_with_expert.paligemma.model
        tower = paligemma.vision_tower.vision_model
        self.patch_embedding = PatchEmbedding(tower.embeddings.patch_embedding)
        self.position_embedding = PositionEmbedding(tower.embeddings.position_embedding)
        self.blocks = nn.ModuleList(VisionBlock(layer) for layer in tower.encoder.layers)
        self.norm = LayerNorm(tower.post_layernorm)
        self.projector = Affine(paligemma.multi_modal_projector.linear)

    def forward(self, image: Tensor) -> Tensor:
        """One view."""
        return exhaust(self.stages(image))[0]

    def stages(self, image: Tensor) -> Stages:
        """`forward`, halting before every unit."""
        yield "patch_embedding", image
        x = self.patch_embedding(image)
        yield "position_embedding", x
        x = self.position_embedding(x)
        for index in range(len(self.blocks)):
            yield f"blocks.{index}", x
            x = self.blocks[index](x)
        yield "norm", x
        x = self.norm(x)
        yield "projector", x
        return (self.projector(x)[None],)


class PrefixGraph(nn.Module):
    """`embeddings` [1, P, width] at `positions` int64 [P] → `keys`, `values` [layers, kv_heads, P, head_dim]."""

    def __init__(self, model: Pi05, positions: int) -> None:
        super().__init__()
        config = model.config.prefix
        self.rotary = Rotary(positions, config.head_dim)
        *layers, last = model.language_model.layers
        self.layers = nn.ModuleList(PrefixLayer(layer, config) for layer in layers)
        self.layers.append(LastPrefixLayer(last, config))

    def forward(self, embeddings: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """All positions are valid."""
        keys, values = exhaust(self.stages(embeddings, positions))
        return keys, values

    def stages(self, embeddings: Tensor, positions: Tensor) -> Stages:
        """`forward`, halting before every unit."""
        yield "rotary", positions
        rotary = self.rotary(positions)
        x, keys, values = embeddings[0], [], []
        last = len(self.layers) - 1
        for index in range(last):
            yield f"layers.{index}", x
            x, key, value = self.layers[index](x, rotary)
            keys.append(key)
            values.append(value)
        yield f"layers.{last}", x
        key, value = self.layers[last](x, rotary)
        return torch.stack((*keys, key)), torch.stack((*values, value))


class StepGraph(nn.Module):
    """One denoise step: `x` [1, H, d], `modulation` [norms, 3, width], `positions` int64 [H] and the prefix's `keys`,
    `values` → `velocity` [1, H, d].
    """

    def __init__(self, model: Pi05, positions: int) -> None:
        super().__init__()
        config = model.config.expert
        self.rotary = Rotary(positions, config.head_dim)
        self.action_in = Affine(model.action_in_proj)
        self.layers = nn.ModuleList(ExpertLayer(layer, config) for layer in model.expert.layers)
        self.norm = AdaptiveNorm()
        self.action_out = Affine(model.action_out_proj)

    def forward(self, x: Tensor, modulation: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """One chunk."""
        return exhaust(self.stages(x, modulation, positions, keys, values))[0]

    def stages(self, x: Tensor, modulation: Tensor, positions: Tensor, keys: Tensor, values: Tensor) -> Stages:
        """`forward`, halting before every unit."""
        return (yield from self._stages(x, modulation[None], None, positions, keys, values))

    def _stages(
        self, x: Tensor, modulation: Tensor, row: Tensor | None, positions: Tensor, keys: Tensor, values: Tensor
    ) -> Stages:
        """`modulation` [times, norms, 3, width]; `row` tells each token its time, None: there is but one."""
        times, width = modulation.shape[0], modulation.shape[-1]
        # Cutting the rows of all norms at once, [times, width] each, takes a handful of nodes instead of hundreds.
        scale, shift, gate = modulation.permute(2, 1, 0, 3).reshape(3, -1, width).unbind(0)
        scales, shifts, gates = (scale + 1.0).split(times), shift.split(times), gate.split(times)

        def rows(norm: int) -> Modulation:
            chosen = Modulation(scales[norm], shifts[norm], gates[norm])
            return chosen if row is None else Modulation(*(torch.index_select(kind, 0, row) for kind in chosen))

        yield "rotary", positions
        rotary = self.rotary(positions)
        yield "action_in", x
        hidden = self.action_in(x[0])
        for index in range(len(self.layers)):
            yield f"layers.{index}", hidden
            hidden = self.layers[index](
                hidden, rows(2 * index), rows(2 * index + 1), rotary, keys[index], values[index]
            )
        hidden = self.norm(hidden, rows(2 * len(self.layers)))
        yield "action_out", hidden
        return (self.action_out(hidden)[None],)


class RtcStepGraph(StepGraph):
    """`StepGraph` with a flow time per token: `modulation` [2, norms, 3, width], `row` int64 [H].

    Row 0 is the step's own time, row 1 that of clean actions (t = 0), which a chunk computed with real-time chunking
    begins with.
    """

    def forward(  # type: ignore[override]  # the same weights, other inputs
        self, x: Tensor, modulation: Tensor, row: Tensor, positions: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """One chunk."""
        return exhaust(self.stages(x, modulation, row, positions, keys, values))[0]

    def stages(  # type: ignore[override]
        self, x: Tensor, modulation: Tensor, row: Tensor, positions: Tensor, keys: Tensor, values: Tensor
    ) -> Stages:
        """`forward`, halting before every unit."""
        return (yield from self._stages(x, modulation, row, positions, keys, values))
