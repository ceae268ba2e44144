"""The text decoder of both VLM families as one graph: any number of new tokens against a static-shape K/V cache.

Qwen3-VL normalises queries and keys per head and adds deepstack features; Qwen2.5-VL has biases on its projections.
Which of them a decoder has is read from transformers' layers.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from memrt.export.streaming.stages import Stages, exhaust
from memrt.export.vlm_layers import Affine, RmsNorm, rotate


def head_dim(text: Any) -> int:
    """Width of one attention head of a transformers text config."""
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


class DecoderLayer(nn.Module):
    """Grouped-query attention over the cache and the new tokens, then a gated MLP; from one transformers layer."""

    def __init__(self, layer: Any, kv_heads: int, head_dim: int) -> None:
        super().__init__()
        attention, mlp = layer.self_attn, layer.mlp
        self._kv_heads, self._head_dim = kv_heads, head_dim
        self.norm1, self.norm2 = RmsNorm(layer.input_layernorm), RmsNorm(layer.post_attention_layernorm)
        self.qkv = Affine(attention.q_proj, attention.k_proj, attention.v_proj)
        self._queries = attention.q_proj.out_features // head_dim
        self._normalised = hasattr(attention, "q_norm")
        if self._normalised:
            self.query_norm, self.key_norm = RmsNorm(attention.q_norm), RmsNorm(attention.k_norm)
        self.output = Affine(attention.o_proj)
        self.gate_up, self.down = Affine(mlp.gate_proj, mlp.up_proj), Affine(mlp.down_proj)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`x` [tokens, width]; `keys`, `values` [kv_heads, capacity, head_dim]; `bias` [group · tokens, all rows].

        Returns `x` and the new tokens' keys and values [kv_heads, tokens, head_dim].
        """
        tokens, heads = x.shape[0], self._kv_heads
        joined = self.qkv(self.norm1(x)).view(tokens, self._queries + 2 * heads, self._head_dim)
        query, key, value = joined.split((self._queries, heads, heads), dim=1)
        if self._normalised:
            query, key = self.query_norm(query), self.key_norm(key)
        query = rotate(query, cos[:, None], sin[:, None]) * self._head_dim**-0.5
        key = rotate(key, cos[:, None], sin[:, None]).transpose(0, 1)
        value = value.transpose(0, 1)
        # The query heads of a group are rows of one matrix, so that each cached key is read once for all of them.
        query = query.view(tokens, heads, -1, self._head_dim).permute(1, 2, 0, 3).flatten(1, 2)
        # The cache is never joined with the new rows: that would copy all of it for every token.
        scores = torch.cat((query @ keys.transpose(1, 2), query @ key.transpose(1, 2)), dim=-1)
        weights = (scores + bias).softmax(-1)
        past, new = weights.split((keys.shape[1], tokens), dim=-1)
        mixed = past @ values + new @ value
        mixed = mixed.view(heads, -1, tokens, self._head_dim).permute(2, 0, 1, 3).reshape(tokens, -1)
        x = x + self.output(mixed)
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up), key, value


def attention_bias(tokens: int, capacity: int, past_length: Tensor, group: int) -> Tensor:
    """Which cached rows and new tokens a new token may see: 0, else -inf, [group · tokens, capacity + tokens].

    The same for each of the `group` query heads that share a key head. Added to the scores: ONNX Runtime selects by a
    mask at a third of the speed.
    """
    past = (torch.arange(capacity) < past_length).expand(tokens, capacity)
    index = torch.arange(tokens)
    seen = torch.cat((past, index[None, :] <= index[:, None]), dim=1)
    return torch.where(seen, 0.0, float("-inf")).repeat(group, 1)


class DecoderGraph(nn.Module):
    """New tokens against a static-shape K/V cache; prefill and one-token steps are the same graph.

    `embeddings` [tokens, width], `cos`, `sin` [tokens, head_dim / 2], `keys`, `values` [layers, kv_heads, capacity,
    head_dim] of which the first `past_length` int64 [1] rows hold, `asked` int64 [answers]: which of the new tokens'
    logits are wanted (a prompt's last, all of a drafted answer), and for families that have it `deepstack`
    [deepstack layers, tokens, width] (zero for text). Gives `logits` [answers, vocabulary] and only the new rows:
    `new_keys` and `new_values` [layers, kv_heads, tokens, head_dim].
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        text, settings = model.model.language_model, model.config.text_config
        heads, width = int(settings.num_key_value_heads), head_dim(settings)
        self._group = int(settings.num_attention_heads) // heads
        self.layers = nn.ModuleList([DecoderLayer(layer, heads, width) for layer in text.layers])
        self.norm = RmsNorm(text.norm)
        self.head = Affine(model.lm_head)

    def forward(
        self,
        embeddings: Tensor,
        cos: Tensor,
        sin: Tensor,
        keys: Tensor,
        values: Tensor,
        past_length: Tensor,
        asked: Tensor,
        deepstack: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the tokens asked for, new keys, new values."""
        stages = self.stages(embeddings, cos, sin, keys, values, past_length, asked, deepstack)
        logits, new_keys, new_values = exhaust(stages)
        return logits, new_keys, new_values

    def stages(
        self,
        embeddings: Tensor,
        cos: Tensor,
        sin: Tensor,
        keys: Tensor,
        values: Tensor,
        past_length: Tensor,
        asked: Tensor,
        deepstack: Tensor | None = None,
    ) -> Stages:
        """`forward`, halting before every unit."""
        bias = attention_bias(embeddings.shape[0], keys.shape[2], past_length, self._group)
        added = 0 if deepstack is None else deepstack.shape[0]
        x = embeddings
        new_keys, new_values = [], []
        for number in range(len(self.layers)):
            yield f"layers.{number}", x
            x, key, value = self.layers[number](x, cos, sin, keys[number], values[number], bias)
            # A view would keep the whole joined projection alive, three times as much.
            new_keys.append(key.contiguous())
            new_values.append(value.contiguous())
            if deepstack is not None and number < added:
                x = x + deepstack[number]
        yield "norm", x
        x = self.norm(x.index_select(0, asked))
        yield "head", x
        return self.head(x), torch.stack(new_keys), torch.stack(new_values)
