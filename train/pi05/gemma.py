"""The Gemma stack over the prefix: images and prompt, bidirectional, run once per observation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from memrt.train.pi05.config import GemmaConfig

RMS_NORM_EPSILON = 1e-6  # Gemma
ROPE_BASE = 10_000.0  # Gemma


class RotaryTable(NamedTuple):
    """Cosines and sines [..., positions, head_dim / 2], float32."""

    cos: Tensor
    sin: Tensor


class KeyValue(NamedTuple):
    """One layer's keys (already rotated) and values, each [batch, kv_heads, tokens, head_dim]."""

    keys: Tensor
    values: Tensor


def rotary_table(positions: Tensor, head_dim: int) -> RotaryTable:
    """The table for integer positions [...]; computed in float32 whatever the model's dtype."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    angles = positions.to(torch.float32)[..., None] * ROPE_BASE**-exponents
    return RotaryTable(angles.cos(), angles.sin())


def rotate(x: Tensor, table: RotaryTable) -> Tensor:
    """Rotate [batch, heads, tokens, head_dim]; the two halves of a head are the pairs (not neighbours)."""
    cos, sin = table.cos[..., None, :, :].to(x.dtype), table.sin[..., None, :, :].to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None) -> Tensor:
    """Attention of q [B, heads, L, d] over k, v [B, kv_heads, P, d]; `allowed` is bool [B or 1, L or 1, P].

    Returns [B, L, heads * d]. Query heads of one group are folded into the length, so that keys and values are
    never repeated in memory.
    """
    batch, heads, length, _ = q.shape
    groups = k.shape[1]
    folded = q.reshape(batch, groups, (heads // groups) * length, q.shape[-1])
    mask = None
    if allowed is not None:
        mask = allowed[:, None]
        if mask.shape[2] != 1:
            mask = mask.repeat(1, 1, heads // groups, 1)
    mixed = functional.scaled_dot_product_attention(folded, k, v, attn_mask=mask)
    return mixed.reshape(batch, heads, length, -1).transpose(1, 2).flatten(-2)


class RmsNorm(nn.Module):
    """Gemma's: x̂ · (1 + weight), the statistic in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [..., width] → the same shape and dtype."""
        return (normalise(x) * (1.0 + self.weight.float())).to(x.dtype)


def normalise(x: Tensor) -> Tensor:
    """x / √(mean(x²) + ε) over the last dimension, in float32."""
    x32 = x.float()
    return x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + RMS_NORM_EPSILON)


class GemmaAttention(nn.Module):
    """Projections without biases; the caller decides what is attended to."""

    def __init__(self, config: GemmaConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.q_proj = nn.Linear(config.width, config.heads * config.head_dim, bias=False)
        self.k_proj = nn.Linear(config.width, config.kv_heads * config.head_dim, bias=False)
        self.v_proj = nn.Linear(config.width, config.kv_heads * config.head_dim, bias=False)
        self.o_proj = nn.Linear(config.heads * config.head_dim, config.width, bias=False)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(-2, -3)

    def key_value(self, x: Tensor, table: RotaryTable) -> KeyValue:
        """Keys and values of tokens [batch, tokens, width]."""
        return KeyValue(rotate(self._split(self.k_proj(x)), table), self._split(self.v_proj(x)))

    def query(self, x: Tensor, table: RotaryTable) -> Tensor:
        """Rotated queries [batch, heads, tokens, head_dim]."""
        return rotate(self._split(self.q_proj(x)), table)


class GemmaMlp(nn.Module):
    """GeGLU: gelu_tanh(gate) · up, then down."""

    def __init__(self, config: GemmaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.mlp_width, bias=False)
        self.up_proj = nn.Linear(config.width, config.mlp_width, bias=False)
        self.down_proj = nn.Linear(config.mlp_width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [..., width] → the same shape."""
        return self.down_proj(functional.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class GemmaLayer(nn.Module):
    """One block of the prefix."""

    def __init__(self, config: GemmaConfig) -> None:
        super().__init__()
        self.input_layernorm = RmsNorm(config.width)
        self.self_attn = GemmaAttention(config)
        self.post_attention_layernorm = RmsNorm(config.width)
        self.mlp = GemmaMlp(config)


class GemmaPrefix(nn.Module):
    """Embedding table and blocks. `norm` exists in checkpoints; nothing reads the prefix's last hidden state."""

    def __init__(self, config: GemmaConfig, vocabulary: int) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(vocabulary, config.width)
        self.layers = nn.ModuleList(GemmaLayer(config) for _ in range(config.depth))
        self.norm = RmsNorm(config.width)

    def embed(self, tokens: Tensor) -> Tensor:
        """Token ids [B, T] → embeddings [B, T, width], scaled by √width as Gemma does."""
        return self.embed_tokens(tokens) * self.config.width**0.5

    def forward(self, embeddings: Tensor, positions: Tensor, allowed: Tensor | None = None) -> list[KeyValue]:
        """Embeddings [B, P, width] at positions [B or 1, P] → every layer's keys and values.

        `allowed` is bool [B, 1, P], false on padding; None when there is none. The last block stops at its keys
        and values: its output is used by nobody.
        """
        return self.run(embeddings, rotary_table(positions, self.config.head_dim), allowed)

    def run(self, embeddings: Tensor, table: RotaryTable, allowed: Tensor | None = None) -> list[KeyValue]:
        """`forward` with the rotary table looked up already."""
        x, cache = embeddings, []
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            normed = layer.input_layernorm(x)
            key_value = layer.self_attn.key_value(normed, table)
            cache.append(key_value)
            if index == last:
                break
            mixed = attend(layer.self_attn.query(normed, table), *key_value, allowed)
            x = x + layer.self_attn.o_proj(mixed)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return cache
