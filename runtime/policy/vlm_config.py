"""What the host has to know about an exported VLM: the bundle's `hl/config.json`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from memrt.runtime.errors import MemrtError


class VlmConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shapes of the decoder's K/V cache, the rotary layout and the stop tokens of one exported VLM."""

    layers: int
    kv_heads: int
    head_dim: int
    width: int
    vocabulary: int
    deepstack_layers: int
    capacity: int  # K/V rows of the static cache: prompt and reply together
    rope_theta: float
    mrope_section: tuple[int, int, int]
    image_size: int  # pixels, square
    visual_grid: tuple[int, int]  # rows and columns of visual tokens of one image
    image_token: str
    stop_tokens: tuple[str, ...]

    @property
    def visual_tokens(self) -> int:
        """Visual tokens of one image."""
        return self.visual_grid[0] * self.visual_grid[1]


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
