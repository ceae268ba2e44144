"""Layers of π0.5's graphs. They take their weights from the training network's layers and hold nothing else.

Projections that read the same input are joined. All query heads that share a key/value head are rows of one matrix, so
attention is two products per layer, and with the one key/value head of π0.5 no axis has to be transposed. Nothing is
masked: what is not there is left out. What a precision plan may want to keep precise is a module of its own: norms
(`layers.*.norm1/*`), rotation (`layers.*.heads/*`), softmax (`layers.*.attention/Softmax`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memrt.export.graph_parts import Affine, LayerNorm, attend, constant, rotate
from memrt.train.pi05.config import GemmaConfig
from memrt.train.pi05.gemma import RMS_NORM_EPSILON, rotary_table


class PatchEmbedding(nn.Module):
    """uint8 pixels [S, S, 3] to one token per patch, row by row from the top left: [patches, width]."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self._patch = convolution.kernel_size[0]
        self.weight = constant(convolution.weight.detach().flatten(1).T)
        self.bias = constant(convolution.bias.detach())  # type: ignore[union-attr]  # SigLIP's has one

    def forward(self, image: Tensor) -> Tensor:
        """The same scaling as `preprocess.normalise_image`."""
        patch, side = self._patch, image.shape[0] // self._patch
        pixels = (image.to(torch.float32) / 127.5 - 1.0).reshape(side, patch, side, patch, 3)
        return pixels.permute(0, 2, 4, 1, 3).reshape(side * side, 3 * patch * patch) @ self.weight + self.bias


class PositionEmbedding(nn.Module):
    """One learned vector per patch."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.weight = constant(embedding.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[patches, width] to the same."""
        return x + self.weight


class FullAttention(nn.Module):
    """Attention among all patches, every head with keys of its own."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self._heads = heads

    def forward(self, joined: Tensor) -> Tensor:
        """Queries, keys and values side by side [patches, 3·width] → mixed values [patches, width]."""
        patches = joined.shape[0]
        query, key, value = joined.view(patches, 3, self._heads, -1).permute(1, 2, 0, 3).unbind(0)
        return attend(query, key, value).transpose(0, 1).reshape(patches, -1)


class VisionBlock(nn.Module):
    """One pre-norm SigLIP block over the patches of a view."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        own = layer.self_attn
        self.norm1, self.norm2 = LayerNorm(layer.layer_norm1), LayerNorm(layer.layer_norm2)
        self.qkv, self.attention = Affine(own.q_proj, own.k_proj, own.v_proj), FullAttention(own.heads)
        self.output = Affine(own.out_proj)
        self.up, self.down = Affine(layer.mlp.fc1), Affine(layer.mlp.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """[patches, width] to [patches, width]."""
        x = x + self.output(self.attention(self.qkv(self.norm1(x))))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class RotaryRows(NamedTuple):
    """Of the tokens at hand, float32 [tokens, 1, head_dim / 2] each; the queries' carry the scale of attention too."""

    cos: Tensor
    sin: Tensor
    query_cos: Tensor
    query_sin: Tensor


class Rotary(nn.Module):
    """Cosines and sines of all positions as constants: no engine has to compute them, in whatever precision."""

    def __init__(self, positions: int, head_dim: int) -> None:
        super().__init__()
        table = rotary_table(torch.arange(positions), head_dim)
        self.cos, self.sin = constant(table.cos), constant(table.sin)
        self._scale = head_dim**-0.5

    def forward(self, positions: Tensor) -> RotaryRows:
        """Positions int64 [tokens]."""
        cos, sin = (torch.index_select(table, 0, positions)[:, None] for table in (self.cos, self.sin))
        return RotaryRows(cos, sin, cos * self._scale, sin * self._scale)


def by_kv_head(x: Tensor, kv_heads: int) -> Tensor:
    """[tokens, heads, d] → [kv_heads, tokens·(heads / kv_heads), d]: tokens, and the heads of a group, become rows.

    Every row attends for itself, so their order does not matter: with one group nothing is moved.
    """
    if kv_heads == 1:
        return x.reshape(1, -1, x.shape[-1])
    return x.unflatten(1, (kv_heads, -1)).transpose(0, 1).flatten(1, 2)


class KeyValueHeads(nn.Module):
    """Keys and values side by side → one matrix per head, the keys rotated."""

    def __init__(self, config: GemmaConfig) -> None:
        super().__init__()
        self._kv_heads, self._head_dim = config.kv_heads, config.head_dim

    def forward(self, joined: Tensor, rotary: RotaryRows) -> tuple[Tensor, Tensor]:
        """[tokens, 2·kv_heads·d] → keys and values [kv_heads, tokens, d]."""
        key, value = joined.unflatten(-1, (-1, self._head_dim)).chunk(2, dim=1)
        return by_kv_head(rotate(key, rotary.cos, rotary.sin), self._kv_heads), by_kv_head(value, self._kv_heads)


class Heads(nn.Module):
    """Queries, keys and values side by side → one matrix per key/value head, queries and keys rotated."""

    def __init__(self, config: GemmaConfig) -> None:
        super().__init__()
        self._counts = (config.heads, config.kv_heads, config.kv_heads)
        self._kv_heads, self._head_dim = config.kv_heads, config.head_dim

    def forward(self, joined: Tensor, rotary: RotaryRows) -> tuple[Tensor, Tensor, Tensor]:
        """[tokens, (heads + 2·kv_heads)·d] → queries [kv_heads, tokens·group, d], keys and values as above."""
        query, key, value = joined.unflatten(-1, (-1, self._head_dim)).split(self._counts, dim=1)
        query = rotate(query, rotary.query_cos, rotary.query_sin)
        key = rotate(key, rotary.cos, rotary.sin)
        return by_kv_head(query, self._kv_heads), by_kv_head(key, self._kv_heads), by_kv_head(value, self._kv_heads)


class GroupedAttention(nn.Module):
    """softmax(queries · keysᵀ) · values, for queries scaled already."""

    def __init__(self, config: GemmaConfig) -> None:
        super().__init__()
        self._heads, self._kv_heads, self._head_dim = config.heads, config.kv_heads, config.head_dim

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """`query` [kv_heads, tokens·group, d] over `keys`, `values` [kv_heads, P, d] → [tokens, heads·d]."""
        mixed = (query @ keys.transpose(-1, -2)).softmax(-1) @ values
        if self._kv_heads > 1:
            mixed = mixed.unflatten(1, (-1, self._heads // self._kv_heads)).transpose(0, 1)
        return mixed.reshape(-1, self._heads * self._head_dim)


class Gated(nn.Module):
    """gelu_tanh(gate) · up of both side by side; it has no weights."""

    def forward(self, joined: Tensor) -> Tensor:
        """[tokens, 2·mlp_width] → [tokens, mlp_width]."""
        gate, up = joined.chunk(2, dim=-1)
        return F.gelu(gate, approximate="tanh") * up


class RmsNorm(nn.Module):
    """Gemma's, x̂ · (1 + weight), spelled the way ONNX Runtime fuses it."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight = constant(1.0 + norm.weight.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        """[tokens, width] to the same."""
        return x / torch.sqrt(x.square().mean(-1, keepdim=True) + RMS_NORM_EPSILON) * self.weight


class PrefixLayer(nn.Module):
    """One Gemma block over the prefix."""

    def __init__(self, layer: Any, config: GemmaConfig) -> None:
        super().__init__()
        own, mlp = layer.self_attn, layer.mlp
        self.norm1, self.norm2 = RmsNorm(layer.input_layernorm), RmsNorm(layer.post_attention_layernorm)
        self.qkv, self.output = Affine(own.q_proj, own.k_proj, own.v_proj), Affine(own.o_proj)
        self.heads, self.attention = Heads(config), GroupedAttention(config)
        self.gate_up, self.gated, self.down = Affine(mlp.gate_proj, mlp.up_proj), Gated(), Affine(mlp.down_proj)

    def forward(self, x: Tensor, rotary: RotaryRows) -> tuple[Tensor, Tensor, Tensor]:
        """`x` [P, width] → `x`, keys and values [kv_heads, P, d]."""
        query, key, value = self.heads(self.qkv(self.norm1(x)), rotary)
        x = x + self.output(self.attention(query, key, value))
        return x + self.down(self.gated(self.gate_up(self.norm2(x)))), key, value


class LastPrefixLayer(nn.Module):
    """The last block, which stops at its keys and values: its output is used by nobody."""

    def __init__(self, layer: Any, config: GemmaConfig) -> None:
        super().__init__()
        self.norm1 = RmsNorm(layer.input_layernorm)
        self.kv, self.heads = Affine(layer.self_attn.k_proj, layer.self_attn.v_proj), KeyValueHeads(config)

    def forward(self, x: Tensor, rotary: RotaryRows) -> tuple[Tensor, Tensor]:
        """`x` [P, width] → keys and values [kv_heads, P, d]."""
        keys, values = self.heads(self.kv(self.norm1(x)), rotary)
        return keys, values


class Modulation(NamedTuple):
    """adaRMS rows of one norm, [1 or tokens, width] each; `scale` has its 1 added already."""

    scale: Tensor
    shift: Tensor
    gate: Tensor


class AdaptiveNorm(nn.Module):
    """x̂ · scale + shift; it has no weights, they are in the modulation table."""

    def forward(self, x: Tensor, rows: Modulation) -> Tensor:
        """[tokens, width] to the same."""
        # ONNX Runtime fuses a norm only together with the weight behind it; without one it takes five passes.
        unit = torch.ones(x.shape[-1])
        normalised = x / torch.sqrt(x.square().mean(-1, keepdim=True) + RMS_NORM_EPSILON) * unit
        return normalised * rows.scale + rows.shift


class ExpertLayer(nn.Module):
    """One block of the action expert: its tokens attend to the prefix and to each other."""

    def __init__(self, layer: Any, config: GemmaConfig) -> None:
        super().__init__()
        own, mlp = layer.self_attn, layer.mlp
        self.norm1, self.norm2 = AdaptiveNorm(), AdaptiveNorm()
        self.qkv, self.output = Affine(own.q_proj, own.k_proj, own.v_proj), Affine(own.o_proj)
        self.heads, self.attention = Heads(config), GroupedAttention(config)
        self.gate_up, self.gated, self.down = Affine(mlp.gate_proj, mlp.up_proj), Gated(), Affine(mlp.down_proj)

    def forward(
        self, x: Tensor, first: Modulation, second: Modulation, rotary: RotaryRows, keys: Tensor, values: Tensor
    ) -> Tensor:
        """`x` [H, width], the prefix's `keys` and `values` [kv_heads, P, d] → [H, width]."""
        query, key, value = self.heads(self.qkv(self.norm1(x, first)), rotary)
        mixed = self.attention(query, torch.cat((keys, key), dim=1), torch.cat((values, value), dim=1))
        x = x + self.output(mixed) * first.gate
        return x + self.down(self.gated(self.gate_up(self.norm2(x, second)))) * second.gate
