"""The sizes of a π0.5 model, and how they are written to a checkpoint's config.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from memrt.runtime.errors import MemrtError


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """A SigLIP tower: `image_size` pixels are cut into patches, tokens of `width` pass `depth` blocks."""

    image_size: int
    patch_size: int
    width: int
    depth: int
    heads: int
    mlp_width: int

    @property
    def tokens(self) -> int:
        """Tokens per view."""
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True, slots=True)
class GemmaConfig:
    """A Gemma decoder stack, used bidirectionally: `heads` query heads share `kv_heads` key/value heads."""

    width: int
    depth: int
    mlp_width: int
    heads: int
    kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True)
class Pi05Config:
    """The whole model. The two stacks must agree in depth, heads and head_dim: they share their attention."""

    name: str
    vision: VisionConfig
    prefix: GemmaConfig
    expert: GemmaConfig
    vocabulary: int
    horizon: int
    action_dim: int
    max_token_len: int
    denoise_steps: int = 10

    def __post_init__(self) -> None:
        shared = ("depth", "heads", "kv_heads", "head_dim")
        differing = [key for key in shared if getattr(self.prefix, key) != getattr(self.expert, key)]
        if differing:
            raise MemrtError(
                f"model config {self.name}",
                expected="prefix and expert with equal depth, heads, kv_heads, head_dim",
                found=f"different {differing}",
                fix="the action expert attends to the prefix layer by layer: give both the same values",
            )
        if self.vision.image_size % self.vision.patch_size or self.vision.width % self.vision.heads:
            raise MemrtError(
                f"model config {self.name}",
                expected="image_size a multiple of patch_size, vision width a multiple of its heads",
                found=str(self.vision),
                fix="correct the vision block of config.json",
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for config.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Pi05Config:
        """The inverse of `to_dict`; unknown or missing keys are refused."""
        try:
            sizes = dict(values)
            return cls(
                vision=VisionConfig(**sizes.pop("vision")),
                prefix=GemmaConfig(**sizes.pop("prefix")),
                expert=GemmaConfig(**sizes.pop("expert")),
                **sizes,
            )
        except (KeyError, TypeError) as error:
            raise MemrtError(
                "π0.5 config", expected="the keys of Pi05Config", found=str(error), fix="correct config.json"
            ) from error

    @classmethod
    def load(cls, path: str | Path) -> Pi05Config:
        """Read the `model` entry of a reference checkpoint's config.json."""
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls.from_dict(document["model"])


def pi05(horizon: int = 50, max_token_len: int = 200) -> Pi05Config:
    """The released size: SigLIP So400m/14, Gemma-2B, the "gemma_300m" action expert (openpi, pi05 configs)."""
    prefix = GemmaConfig(width=2048, depth=18, mlp_width=16384, heads=8, kv_heads=1, head_dim=256)
    return Pi05Config(
        name="pi05",
        vision=VisionConfig(image_size=224, patch_size=14, width=1152, depth=27, heads=16, mlp_width=4304),
        prefix=prefix,
        expert=replace(prefix, width=1024, mlp_width=4096),
        vocabulary=257152,
        horizon=horizon,
        action_dim=32,
        max_token_len=max_token_len,
    )


def reference(vocabulary: int, horizon: int = 16, *, image_size: int = 96) -> Pi05Config:
    """The small policy trained on the tabletop tasks: the same network at a fraction of the width."""
    prefix = GemmaConfig(width=128, depth=4, mlp_width=384, heads=4, kv_heads=1, head_dim=32)
    return Pi05Config(
        name="reference",
        vision=VisionConfig(image_size=image_size, patch_size=16, width=128, depth=3, heads=4, mlp_width=512),
        prefix=prefix,
        expert=prefix,
        vocabulary=vocabulary,
        horizon=horizon,
        action_dim=8,
        max_token_len=64,
    )


def tiny(vocabulary: int = 300) -> Pi05Config:
    """A model for tests: every part present, nothing larger than needed."""
    prefix = GemmaConfig(width=24, depth=3, mlp_width=40, heads=2, kv_heads=1, head_dim=8)
    return Pi05Config(
        name="tiny",
        vision=VisionConfig(image_size=32, patch_size=16, width=16, depth=2, heads=2, mlp_width=24),
        prefix=prefix,
        expert=replace(prefix, width=20, mlp_width=28),
        vocabulary=vocabulary,
        horizon=6,
        action_dim=8,
        max_token_len=48,
        denoise_steps=10,
    )
