"""What the host has to know about an exported VLM: the bundle's `hl/config.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from memrt.runtime.errors import MemrtError


class ImageSize(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Images that one vision engine takes: pixels, and rows and columns of visual tokens."""

    height: int
    width: int
    grid: tuple[int, int]

    @property
    def pixels(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def tokens(self) -> int:
        """Visual tokens of one image."""
        return self.grid[0] * self.grid[1]


class Resize(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The image processor's resizing: to multiples of `factor` pixels, within `min_pixels` and `max_pixels`."""

    factor: int
    min_pixels: int
    max_pixels: int


class VlmConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Shapes of the decoder's K/V cache, the rotary layout, image sizes and stop tokens of one exported VLM.

    Bundles of memrt's first version name one square size by `image_size` and `visual_grid`; both become an entry of
    `image_sizes` when read. `resize` is None for a VLM that was trained on images as the camera gives them: frames of
    another size are then refused.
    """

    layers: int
    kv_heads: int
    head_dim: int
    width: int
    vocabulary: int
    deepstack_layers: int
    capacity: int  # K/V rows of the static cache: prompt and reply together
    rope_theta: float
    mrope_section: tuple[int, int, int]
    mrope_layout: Literal["interleaved", "sectioned"] = "interleaved"
    image_sizes: tuple[ImageSize, ...] = ()
    image_size: int | None = None
    visual_grid: tuple[int, int] | None = None
    resize: Resize | None = None
    image_token: str
    stop_tokens: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.image_size is not None and self.visual_grid is not None and not self.image_sizes:
            size = ImageSize(height=self.image_size, width=self.image_size, grid=self.visual_grid)
            msgspec.structs.force_setattr(self, "image_sizes", (size,))
            msgspec.structs.force_setattr(self, "image_size", None)
            msgspec.structs.force_setattr(self, "visual_grid", None)
        pixels = [size.pixels for size in self.image_sizes]
        if not pixels or len(set(pixels)) < len(pixels) or self.image_size is not None or self.visual_grid is not None:
            raise ValueError("expected `image_sizes` with at least one size, each once")

    def vision_graph(self, size: ImageSize) -> str:
        """Name of the vision graph for `size`, its file's name without suffix: `vision` where there is only one."""
        return "vision" if len(self.image_sizes) == 1 else f"vision_{size.height}x{size.width}"


def read_vlm_config(path: Path) -> VlmConfig:
    """Decode `path`. Raises MemrtError when it is not what this version of memrt exports."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=VlmConfig)
    except (OSError, msgspec.DecodeError) as error:
        raise MemrtError(
            f"VLM settings {path}", expected="the config.json of an exported VLM", found=error, fix="export it again"
        ) from error


def write_vlm_config(config: VlmConfig, path: Path) -> None:
    """Write `config` as readable JSON with a stable order of keys."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n")
