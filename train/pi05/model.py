"""π0.5: vision tower, Gemma prefix and action expert, assembled under openpi's PyTorch parameter names."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from memrt.train.pi05.action_expert import ActionExpert
from memrt.train.pi05.config import Pi05Config
from memrt.train.pi05.gemma import GemmaPrefix, KeyValue
from memrt.train.pi05.siglip import MultiModalProjector, VisionTower

# openpi: the flow time in 0..1 is encoded with sines of these periods.
SHORTEST_PERIOD, LONGEST_PERIOD = 4e-3, 4.0


class Prefix(NamedTuple):
    """What the expert needs of one observation: K/V by layer, validity [B, 1, P] or None, valid tokens [B]."""

    cache: list[KeyValue]
    allowed: Tensor | None
    length: Tensor


class PaliGemmaModel(nn.Module):
    """`paligemma.model` of the checkpoint."""

    def __init__(self, config: Pi05Config) -> None:
        super().__init__()
        self.vision_tower = VisionTower(config.vision)
        self.multi_modal_projector = MultiModalProjector(config.vision.width, config.prefix.width)
        self.language_model = GemmaPrefix(config.prefix, config.vocabulary)


class PaliGemma(nn.Module):
    """`paligemma` of the checkpoint; the tied `lm_head` is never used by a flow-matching policy and not kept."""

    def __init__(self, config: Pi05Config) -> None:
        super().__init__()
        self.model = PaliGemmaModel(config)


class GemmaExpert(nn.Module):
    """`gemma_expert` of the checkpoint."""

    def __init__(self, config: Pi05Config) -> None:
        super().__init__()
        self.model = ActionExpert(config.expert)


class PaliGemmaWithExpert(nn.Module):
    """`paligemma_with_expert` of the checkpoint."""

    def __init__(self, config: Pi05Config) -> None:
        super().__init__()
        self.paligemma = PaliGemma(config)
        self.gemma_expert = GemmaExpert(config)


def time_features(t: Tensor, width: int) -> Tensor:
    """Flow times [...] → [..., width]: sines, then cosines, periods geometric from 4e-3 to 4 (float64 inside)."""
    fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64, device=t.device)
    period = SHORTEST_PERIOD * (LONGEST_PERIOD / SHORTEST_PERIOD) ** fraction
    angle = 2.0 * math.pi * t.to(torch.float64)[..., None] / period
    return torch.cat((angle.sin(), angle.cos()), dim=-1).to(torch.float32)


class Pi05(nn.Module):
    """The policy network. Tensors are batched; images are channels-last, float, in [-1, 1]."""

    def __init__(self, config: Pi05Config) -> None:
        super().__init__()
        self.config = config
        width = config.expert.width
        self.paligemma_with_expert = PaliGemmaWithExpert(config)
        self.action_in_proj = nn.Linear(config.action_dim, width)
        self.action_out_proj = nn.Linear(width, config.action_dim)
        self.time_mlp_in = nn.Linear(width, width)
        self.time_mlp_out = nn.Linear(width, width)

    @property
    def language_model(self) -> GemmaPrefix:
        """The stack over the prefix."""
        return self.paligemma_with_expert.paligemma.model.language_model

    @property
    def expert(self) -> ActionExpert:
        """The stack over the action tokens."""
        return self.paligemma_with_expert.gemma_expert.model

    def embed_images(self, images: Tensor) -> Tensor:
        """Views [B, S, S, 3] → tokens [B, tokens, prefix width]."""
        model = self.paligemma_with_expert.paligemma.model
        return model.multi_modal_projector(model.vision_tower(images))

    def embed_prefix(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Views [B, V, S, S, 3] and token ids [B, T] → [B, V·tokens + T, prefix width]: views first, then text."""
        batch = images.shape[0]
        if images.shape[1] == 0:  # a policy may be asked without any view: reshape(-1) cannot infer from nothing
            return self.language_model.embed(tokens)
        vision = self.embed_images(images.flatten(0, 1)).reshape(batch, -1, self.config.prefix.width)
        return torch.cat((vision, self.language_model.embed(tokens)), dim=1)

    def prefix(self, images: Tensor, tokens: Tensor, token_mask: Tensor, view_mask: Tensor | None = None) -> Prefix:
        """Run the prefix once. `token_mask` bool [B, T] and `view_mask` bool [B, V] are false on what is not there.

        Positions count valid tokens only, so masking and leaving out are the same thing.
        """
        batch, views = images.shape[:2]
        if view_mask is None:
            view_mask = torch.ones(batch, views, dtype=torch.bool, device=images.device)
        valid = torch.cat((view_mask.repeat_interleave(self.config.vision.tokens, 1), token_mask), dim=1)
        positions = valid.long().cumsum(1) - 1
        allowed = valid[:, None, :]
        cache = self.language_model(self.embed_prefix(images, tokens), positions, allowed)
        return Prefix(cache, allowed, valid.sum(1))

    def modulation(self, t: Tensor) -> Tensor:
        """Flow times [...] → adaRMS rows [..., 2·depth + 1, 3, width]."""
        features = time_features(t, self.config.expert.width).to(self.time_mlp_in.weight.dtype)
        condition = functional.silu(self.time_mlp_out(functional.silu(self.time_mlp_in(features))))
        return self.expert.modulation(condition)

    def velocity(self, x: Tensor, rows: Tensor, prefix: Prefix) -> Tensor:
        """Noised chunks [B, draws, H, action_dim] and their modulation rows → velocities of the same shape.

        The rows are those of times [B, draws], or of times [B, draws, H], one per action.
        """
        horizon = torch.arange(x.shape[2], device=x.device)
        positions = prefix.length[:, None] + horizon
        hidden = self.expert(self.action_in_proj(x), rows, positions, prefix.cache, prefix.allowed)
        return self.action_out_proj(hidden)
