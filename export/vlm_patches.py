"""From pixels to patches, for one image size: the image processor's arithmetic and the vision tower's first layer.

Patches come in the order of the image processor: blocks of merge x merge patches, row by row, since the patches of one
block become one visual token. What depends on the image size alone is a constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from memrt.export.vlm_layers import constant
from memrt.runtime.errors import MemrtError


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """`rows` x `columns` patches of `patch` pixels, joined in blocks of `merge` x `merge`."""

    rows: int
    columns: int
    patch: int
    merge: int

    @staticmethod
    def of(vision: Any, image_size: tuple[int, int]) -> PatchGrid:
        """The grid of an image of (height, width) pixels. Raises MemrtError for a size that is not whole blocks."""
        patch, merge = int(vision.patch_size), int(vision.spatial_merge_size)
        if any(side <= 0 or side % (patch * merge) for side in image_size):
            raise MemrtError(
                f"image size {image_size[0]}x{image_size[1]}",
                expected=f"multiples of {patch * merge} (patches of {patch} pixels in blocks of {merge}x{merge})",
                found=f"{image_size[0] % (patch * merge)} and {image_size[1] % (patch * merge)} pixels too many",
                fix="export the size that the image processor resizes to",
            )
        return PatchGrid(image_size[0] // patch, image_size[1] // patch, patch, merge)

    @property
    def tokens(self) -> tuple[int, int]:
        """Rows and columns of visual tokens."""
        return self.rows // self.merge, self.columns // self.merge

    def positions(self) -> Tensor:
        """Row and column of every patch, int64 [patches, 2]."""
        rows, columns = torch.meshgrid(torch.arange(self.rows), torch.arange(self.columns), indexing="ij")
        blocks = (*self.tokens, self.merge)
        both = torch.stack((rows, columns), dim=-1).view(blocks[0], self.merge, blocks[1], self.merge, 2)
        return both.transpose(1, 2).reshape(-1, 2)


class PatchEmbedding(nn.Module):
    """Image uint8 [height, width, 3] to patches fp32 [patches, width].

    `mean` and `deviation` of the pixels (0..1) by channel are the image processor's. An image counts as two equal
    frames, so the two frames' weights are added up. `positions` [patches, width] are added to every image alike.
    """

    def __init__(
        self,
        projection: nn.Conv3d,
        grid: PatchGrid,
        mean: tuple[float, ...],
        deviation: tuple[float, ...],
        positions: Tensor | None = None,
    ) -> None:
        super().__init__()
        self._grid = grid
        self.weight = constant(projection.weight.detach().float().sum(2).flatten(1).T)
        terms = [term.detach().float() for term in (positions, projection.bias) if term is not None]
        self.bias = constant(sum(terms[1:], terms[0])) if terms else None
        self.scale = constant(torch.tensor([1.0 / (255.0 * channel) for channel in deviation]))
        self.shift = constant(torch.tensor([m / d for m, d in zip(mean, deviation, strict=True)]))

    def forward(self, image: Tensor) -> Tensor:
        """All patches of one image."""
        (rows, columns), merge, patch = self._grid.tokens, self._grid.merge, self._grid.patch
        pixels = (image.float() * self.scale - self.shift).view(rows, merge, patch, columns, merge, patch, 3)
        x = pixels.permute(0, 3, 1, 4, 6, 2, 5).reshape(self._grid.rows * self._grid.columns, -1) @ self.weight
        return x if self.bias is None else x + self.bias


class AxialRotary(nn.Module):
    """cos and sin fp32 [patches, head_dim / 2] of all patches: one half turns with the row, the other with the column.

    `order` int64 [patches] says which patch stands where, if not in the image processor's order.
    """

    def __init__(self, vision: Any, grid: PatchGrid, order: Tensor | None = None) -> None:
        super().__init__()
        spatial = int(vision.hidden_size) // int(vision.num_heads) // 2
        theta = float((vision.rope_parameters or {}).get("rope_theta", 10_000.0))
        inverse_frequency = 1.0 / (theta ** (torch.arange(0, spatial, 2, dtype=torch.float32) / spatial))
        positions = grid.positions() if order is None else grid.positions()[order]
        angles = (positions[..., None].float() * inverse_frequency).flatten(1)
        self.cos, self.sin = constant(angles.cos()), constant(angles.sin())

    def forward(self) -> tuple[Tensor, Tensor]:
        """The table."""
        return self.cos, self.sin


def resampled_positions(table: nn.Embedding, grid: PatchGrid) -> Tensor:
    """A square table of learned positions, bilinearly resampled to `grid` with equal corners: [patches, width]."""
    side = round(table.num_embeddings**0.5)
    corners: list[tuple[Tensor, Tensor]] = []  # per axis: the two neighbours of every patch, and their weights
    for axis, size in enumerate((grid.rows, grid.columns)):
        source = grid.positions()[:, axis].float() * (side - 1) / max(size - 1, 1)
        below = source.floor()
        neighbours = (below.long()[:, None] + torch.arange(2)).clamp(max=side - 1)
        above = source - below
        corners.append((neighbours, torch.stack((1 - above, 1 - (above - 1).abs()), dim=-1)))
    (rows, row_weights), (columns, column_weights) = corners
    index = (rows[:, :, None] * side + columns[:, None, :]).flatten(1)
    weights = (row_weights[:, :, None] * column_weights[:, None, :]).flatten(1)
    values = table.weight.detach()
    taken = nn.functional.embedding(index.to(values.device), values).float()
    return (taken * weights.to(values.device)[..., None]).sum(1)
