"""Qwen3-VL as two graphs of fixed meaning: `VisionGraph` (one frame) and `DecoderGraph` (any number of new tokens).

The modules take their weights from a transformers model and hold nothing else. Everything that depends on the image
size alone (patch order, resampled position table, rotary tables) is a constant of the graph; projections that read the
same input are joined; weights lie as [in, out], so that each is one MatMul with a constant, which is what quantisers
look for. Held to transformers' forward by the tests and by the graph gate.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen3VLForConditionalGeneration
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids


def _constant(tensor: Tensor) -> nn.Buffer:
    return nn.Buffer(tensor.detach().clone().contiguous().float())


class Affine(nn.Module):
    """x @ weight + bias, from one or several joined linear layers."""

    def __init__(self, *layers: nn.Linear) -> None:
        super().__init__()
        self.weight = _constant(torch.cat([layer.weight for layer in layers]).T)
        self.bias = None if layers[0].bias is None else _constant(torch.cat([layer.bias for layer in layers]))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        y = x @ self.weight
        return y if self.bias is None else y + self.bias


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self._eps = _constant(norm.weight), _constant(norm.bias), norm.eps

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self._eps)


class RmsNorm(nn.Module):
    """Root-mean-square normalisation over the last axis, spelled the way ONNX Runtime fuses it."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight = _constant(norm.weight)  # type: ignore[arg-type]
        self._eps = float(norm.variance_epsilon)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`."""
        return x / torch.sqrt(x.square().mean(-1, keepdim=True) + self._eps) * self.weight


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on the last axis; `cos`, `sin` have half its width."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class PatchMerger(nn.Module):
    """2x2 patches to one token. Deepstack mergers normalise after joining the patches, the last merger before."""

    def __init__(self, merger: nn.Module) -> None:
        super().__init__()
        self._joined = int(merger.hidden_size)  # type: ignore[arg-type]
        self._after = bool(merger.use_postshuffle_norm)
        self.norm = LayerNorm(merger.norm)  # type: ignore[arg-type]
        self.up, self.down = Affine(merger.linear_fc1), Affine(merger.linear_fc2)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """[patches, width] to [patches / 4, decoder width]."""
        x = self.norm(x.reshape(-1, self._joined)) if self._after else self.norm(x).reshape(-1, self._joined)
        return self.down(F.gelu(self.up(x)))


class VisionBlock(nn.Module):
    """One pre-norm transformer block over all patches of a frame."""

    def __init__(self, block: nn.Module, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.norm1, self.norm2 = LayerNorm(block.norm1), LayerNorm(block.norm2)  # type: ignore[arg-type]
        self.qkv, self.projection = Affine(block.attn.qkv), Affine(block.attn.proj)  # type: ignore[union-attr,arg-type]
        self.up, self.down = Affine(block.mlp.linear_fc1), Affine(block.mlp.linear_fc2)  # type: ignore[union-attr,arg-type]

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """[patches, width] to [patches, width]."""
        patches, width = x.shape
        query, key, value = self.qkv(self.norm1(x)).view(patches, 3, self._heads, -1).permute(1, 2, 0, 3).unbind(0)
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        weights = (query * query.shape[-1] ** -0.5 @ key.transpose(1, 2)).softmax(-1)
        x = x + self.projection((weights @ value).transpose(0, 1).reshape(patches, width))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class VisionGraph(nn.Module):
    """image uint8 [size, size, 3] to `tokens` [visual tokens, width] and `deepstack` [layers, visual tokens, width].

    The image processor's work is part of the graph: pixels to [-1, 1], patches in blocks of 2x2. An image counts as two
    equal frames, so the two frames' patch weights are added up.
    """

    def __init__(self, model: Qwen3VLForConditionalGeneration, image_size: int) -> None:
        super().__init__()
        visual, settings = model.model.visual, model.config.vision_config
        if settings.hidden_act != "gelu_pytorch_tanh":
            raise ValueError(f"vision activation {settings.hidden_act} is not gelu_pytorch_tanh")
        self._patch, self._merge = int(settings.patch_size), int(settings.spatial_merge_size)
        self._grid = image_size // self._patch
        grid = torch.tensor([[1, self._grid, self._grid]])
        index, weight = get_vision_interpolation_indices_and_weights(
            grid,
            num_grid_per_side=visual.num_grid_per_side,
            mode="bilinear",
            align_corners=True,
            spatial_merge_size=self._merge,
        )
        projection = visual.patch_embed.proj
        self.patch_weight = _constant(projection.weight.sum(2).flatten(1).T)
        positions = (visual.pos_embed(index) * weight[..., None]).sum(1)
        self.patch_bias = _constant(positions + projection.bias)
        cos, sin = visual.rotary_pos_emb(positions, get_vision_position_ids(grid, self._merge))
        self.cos, self.sin = _constant(cos.chunk(2, -1)[0]), _constant(sin.chunk(2, -1)[0])
        self.blocks = nn.ModuleList([VisionBlock(block, settings.num_heads) for block in visual.blocks])
        self._tapped = list(settings.deepstack_visual_indexes)
        self.deepstack_mergers = nn.ModuleList([PatchMerger(merger) for merger in visual.deepstack_merger_list])
        self.merger = PatchMerger(visual.merger)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """One frame's features."""
        blocks, merge, patch = self._grid // self._merge, self._merge, self._patch
        pixels = (image.float() * (2.0 / 255.0) - 1.0).view(blocks, merge, patch, blocks, merge, patch, 3)
        x = pixels.permute(0, 3, 1, 4, 6, 2, 5).reshape(self._grid**2, -1) @ self.patch_weight + self.patch_bias
        features: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            x = block(x, self.cos, self.sin)
            if number in self._tapped:
                features.append(self.deepstack_mergers[self._tapped.index(number)](x))
        return self.merger(x), torch.stack(features)


class DecoderLayer(nn.Module):
    """Grouped-query attention over the cache and the new tokens, then a gated MLP."""

    def __init__(self, layer: nn.Module, kv_heads: int, head_dim: int) -> None:
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        self._kv_heads, self._head_dim = kv_heads, head_dim
        self.norm1, self.norm2 = RmsNorm(layer.input_layernorm), RmsNorm(layer.post_attention_layernorm)  # type: ignore[arg-type]
        self.qkv = Affine(attention.q_proj, attention.k_proj, attention.v_proj)  # type: ignore[union-attr,arg-type]
        self._queries = attention.q_proj.out_features // head_dim  # type: ignore[union-attr,operator]
        self.query_norm, self.key_norm = RmsNorm(attention.q_norm), RmsNorm(attention.k_norm)  # type: ignore[union-attr,arg-type]
        self.output = Affine(attention.o_proj)  # type: ignore[union-attr,arg-type]
        self.gate_up, self.down = Affine(mlp.gate_proj, mlp.up_proj), Affine(mlp.down_proj)  # type: ignore[union-attr,arg-type]

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`x` [tokens, width]; `keys`, `values` [kv_heads, capacity, head_dim]; `mask` bool [tokens, capacity+tokens].

        Returns `x` and the new tokens' keys and values [kv_heads, tokens, head_dim].
        """
        tokens, heads = x.shape[0], self._kv_heads
        joined = self.qkv(self.norm1(x)).view(tokens, self._queries + 2 * heads, self._head_dim)
        query, key, value = joined.split((self._queries, heads, heads), dim=1)
        query = rotate(self.query_norm(query), cos[:, None], sin[:, None]) * self._head_dim**-0.5
        key = rotate(self.key_norm(key), cos[:, None], sin[:, None]).transpose(0, 1)
        value = value.transpose(0, 1)
        query = query.view(tokens, heads, -1, self._head_dim).permute(1, 2, 0, 3)  # [kv_heads, group, tokens, dim]
        every_key, every_value = torch.cat((keys, key), dim=1), torch.cat((values, value), dim=1)
        scores = query @ every_key.transpose(1, 2)[:, None]
        weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
        mixed = (weights @ every_value[:, None]).permute(2, 0, 1, 3).reshape(tokens, -1)
        x = x + self.output(mixed)
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up), key, value


class DecoderGraph(nn.Module):
    """New tokens against a static-shape K/V cache; prefill and one-token steps are the same graph.

    `embeddings` [tokens, width], `deepstack` [deepstack layers, tokens, width] (zero for text), `cos`, `sin`
    [tokens, head_dim / 2], `keys`, `values` [layers, kv_heads, capacity, head_dim] of which the first `past_length`
    int64 [1] rows hold. Gives `logits` [1, vocabulary] of the last token and only the new rows: `new_keys` and
    `new_values` [layers, kv_heads, tokens, head_dim].
    """

    def __init__(self, model: Qwen3VLForConditionalGeneration) -> None:
        super().__init__()
        text, settings = model.model.language_model, model.config.text_config
        if settings.hidden_act != "silu":
            raise ValueError(f"decoder activation {settings.hidden_act} is not silu")
        self.layers = nn.ModuleList(
            [DecoderLayer(layer, settings.num_key_value_heads, settings.head_dim) for layer in text.layers]
        )
        self.norm = RmsNorm(text.norm)
        self.head = Affine(model.lm_head)

    def forward(
        self,
        embeddings: Tensor,
        deepstack: Tensor,
        cos: Tensor,
        sin: Tensor,
        keys: Tensor,
        values: Tensor,
        past_length: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the last token, new keys, new values."""
        tokens, capacity = embeddings.shape[0], keys.shape[2]
        past = (torch.arange(capacity) < past_length).expand(tokens, capacity)
        index = torch.arange(tokens)
        mask = torch.cat((past, index[None, :] <= index[:, None]), dim=1)
        x = embeddings
        new_keys, new_values = [], []
        for number, layer in enumerate(self.layers):
            x, key, value = layer(x, cos, sin, keys[number], values[number], mask)
            new_keys.append(key)
            new_values.append(value)
            if number < deepstack.shape[0]:
                x = x + deepstack[number]
        return self.head(self.norm(x[-1:])), torch.stack(new_keys), torch.stack(new_values)
