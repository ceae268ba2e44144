"""Training forward of the high-level policy: the model's own parameters, batched for few cores.

transformers' forward loops over images in attention, runs the patch embedding as a 3-D convolution over two equal
frames and builds masks per call. Here the vision tower runs over a batch of equal grids, the patch embedding is one
matrix product over the sum of both frames' weights, the causal mask is implicit (padding stands on the right, where
nothing real can see it), several texts may share one image, and where no target stands neither the vocabulary is scored
nor the last layer computed, beyond its keys and values.
`tests/high_level/test_training_forward.py` holds it to transformers' forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen3VLForConditionalGeneration
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

from memrt.train.high_level_model import GRID, IMAGE_SIZE, MERGE, PATCH, VISUAL_TOKENS

IGNORE = -100
PROBED_HEADS = (0, 3)  # where training looks into a decoder layer: one query head of either K/V group


@dataclass(frozen=True, slots=True)
class VisionFeatures:
    """`tokens` [images, 64, width] and one deepstack feature of the same shape per injected decoder layer."""

    tokens: Tensor
    deepstack: tuple[Tensor, ...]

    def select(self, index: Tensor) -> VisionFeatures:
        """Features of the images named by `index`."""
        return VisionFeatures(self.tokens[index], tuple(feature[index] for feature in self.deepstack))

    def to(self, device: torch.device) -> VisionFeatures:
        """The same features on `device`."""
        return VisionFeatures(self.tokens.to(device), tuple(feature.to(device) for feature in self.deepstack))


@dataclass(frozen=True, slots=True)
class Probe:
    """What a decoder layer makes of n positions: its output [n, width], and where its PROBED_HEADS look.

    `logits` [n, heads, length] are those of the attention, before the softmax, with what a position cannot see at -inf.
    """

    hidden: Tensor
    logits: Tensor

    def split(self, *counts: int) -> tuple[Probe, ...]:
        """So many positions at a time, and at the end those that are left."""
        sizes = [*counts, len(self.hidden) - sum(counts)]
        return tuple(map(Probe, self.hidden.split(sizes), self.logits.split(sizes)))


@dataclass(frozen=True, slots=True)
class TextBatch:
    """Texts padded on the right.

    `ids` int64 [texts, length]; `positions` int64 [3, texts, length] (temporal, row, column); `image` int64 [shown]
    names the images that are shown, text by text; `image_start` int64 [shown] is where the 64 placeholders of each
    begin in texts x length; `targets` int64 [texts, length] holds the token to predict at each position, or IGNORE.
    """

    ids: Tensor
    positions: Tensor
    image: Tensor
    image_start: Tensor
    targets: Tensor

    def to(self, device: torch.device) -> TextBatch:
        """The same batch on `device`."""
        tensors = (self.ids, self.positions, self.image, self.image_start, self.targets)
        return TextBatch(*(tensor.to(device) for tensor in tensors))


def patches(images: Tensor) -> Tensor:
    """uint8 [n, 256, 256, 3] to fp32 [n, 256 patches, 768] in (-1, 1), in Qwen's order: 2x2 blocks, then c, y, x."""
    n = images.shape[0]
    scaled = images.float().mul_(2.0 / 255.0).sub_(1.0)
    blocks = scaled.view(n, GRID // MERGE, MERGE, PATCH, GRID // MERGE, MERGE, PATCH, 3)
    return blocks.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(n, GRID * GRID, 3 * PATCH * PATCH)


def _rms_norm(x: Tensor, norm: torch.nn.Module) -> Tensor:
    weight: Tensor = norm.weight  # type: ignore[assignment]
    return F.rms_norm(x, (x.shape[-1],), weight, norm.variance_epsilon)  # type: ignore[arg-type]


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


@dataclass(frozen=True, slots=True)
class _Asked:
    """Where targets stand: `row` and `column` int64 [asked] in texts x length; `place` [asked] counts them in a row."""

    texts: int
    row: Tensor
    column: Tensor
    place: Tensor

    @staticmethod
    def of(batch: TextBatch) -> _Asked:
        wanted = batch.targets != IGNORE
        row, column = wanted.nonzero().unbind(1)
        return _Asked(len(wanted), row, column, wanted.cumsum(1)[row, column] - 1)

    def padded(self, values: Tensor) -> Tensor:
        """`values` [asked, ...] as [texts, most asked of one text, ...]; what is left over is 0."""
        empty = values.new_zeros(self.texts, int(self.place.max()) + 1, *values.shape[1:])
        return empty.index_put((self.row, self.place), values)


def _attention_logits(query: Tensor, key: Tensor, where: Tensor) -> Tensor:
    """Logits [n, probed heads, length] of `query` [texts, heads, length, dim] at `where` over `key` of their texts."""
    heads, length, dim = query.shape[1:]
    row, position = where // length, where % length
    chosen = query[row, :, position][:, PROBED_HEADS]
    seen = key[row][:, [head * key.shape[1] // heads for head in PROBED_HEADS]]
    logits = (seen @ chosen[..., None])[..., 0] * dim**-0.5
    hidden = torch.arange(length, device=where.device) > position[:, None]
    return logits.masked_fill(hidden[:, None], float("-inf"))


def _projected(layer: Any, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated queries and keys, and values, [texts, heads, length, dim], of one decoder layer."""
    attention, shape = layer.self_attn, (*x.shape[:2], -1, layer.self_attn.head_dim)
    normed = _rms_norm(x, layer.input_layernorm)
    query = _rms_norm(attention.q_proj(normed).view(shape), attention.q_norm).transpose(1, 2)
    key = _rms_norm(attention.k_proj(normed).view(shape), attention.k_norm).transpose(1, 2)
    value = attention.v_proj(normed).view(shape).transpose(1, 2)
    return _rotate(query, cos, sin), _rotate(key, cos, sin), value


class TrainingForward:
    """Vision and decoder passes over `model`'s parameters; tables that depend on the grid only are kept."""

    def __init__(self, model: Qwen3VLForConditionalGeneration) -> None:
        self.model = model
        visual = model.model.visual
        self.device = device = visual.pos_embed.weight.device
        grid = torch.tensor([[1, GRID, GRID]])
        index, weight = get_vision_interpolation_indices_and_weights(
            grid,
            num_grid_per_side=visual.num_grid_per_side,
            mode="bilinear",
            align_corners=True,
            spatial_merge_size=MERGE,
        )
        self._position_index, self._position_weight = index.to(device), weight.to(device)
        self.identity_grid = bool(((weight == 1).sum(-1) == 1).all() and (weight.sum(-1) == 1).all())
        where = get_vision_position_ids(grid, MERGE).to(device)
        cos, sin = visual.rotary_pos_emb(visual.pos_embed.weight, where)
        half = cos.shape[-1] // 2
        self._vision_cos, self._vision_sin = cos[:, :half], sin[:, :half]

    def vision(self, images: Tensor) -> VisionFeatures:
        """uint8 [n, 256, 256, 3] to merged tokens and deepstack features."""
        if images.shape[1:] != (IMAGE_SIZE, IMAGE_SIZE, 3):
            raise ValueError(f"images must be [n, {IMAGE_SIZE}, {IMAGE_SIZE}, 3], got {tuple(images.shape)}")
        visual = self.model.model.visual
        projection = visual.patch_embed.proj
        weight = projection.weight.sum(2).flatten(1)  # both frames of an image are equal
        x = F.linear(patches(images.to(self.device)), weight, projection.bias)
        x = x + (visual.pos_embed(self._position_index) * self._position_weight[..., None]).sum(1)
        features: list[Tensor] = []
        n, tokens, width = x.shape
        for number, block in enumerate(visual.blocks):
            attention = block.attn
            qkv = attention.qkv(block.norm1(x)).view(n, tokens, 3, attention.num_heads, attention.head_dim)
            query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            query = _rotate(query, self._vision_cos, self._vision_sin)
            key = _rotate(key, self._vision_cos, self._vision_sin)
            mixed = F.scaled_dot_product_attention(query, key, value)
            x = x + attention.proj(mixed.transpose(1, 2).reshape(n, tokens, width))
            x = x + block.mlp(block.norm2(x))
            if number in visual.deepstack_visual_indexes:
                merger = visual.deepstack_merger_list[list(visual.deepstack_visual_indexes).index(number)]
                features.append(merger(x).view(n, VISUAL_TOKENS, -1))
        return VisionFeatures(visual.merger(x).view(n, VISUAL_TOKENS, -1), tuple(features))

    def decode(self, batch: TextBatch, vision: VisionFeatures | None) -> Tensor:
        """Hidden states [asked tokens, width] after the last norm. `vision` holds one row per image of the batch."""
        return self.decode_probed(batch, vision, {})[0]

    def decode_probed(
        self, batch: TextBatch, vision: VisionFeatures | None, where: Mapping[int, Tensor]
    ) -> tuple[Tensor, dict[int, Probe]]:
        """As `decode`; and what each layer of `where` makes of its positions, int64 [n] into texts x length."""
        text = self.model.model.language_model
        if where and max(where) >= len(text.layers) - 1:
            raise ValueError(f"layer {max(where)} is the last of {len(text.layers)}: only answers are computed there")
        x = text.embed_tokens(batch.ids)
        rows, length, width = x.shape
        deepstack: tuple[Tensor, ...] = ()
        slots = torch.empty(0, dtype=torch.long)
        if vision is not None:
            chosen = vision.select(batch.image)
            slots = (batch.image_start[:, None] + torch.arange(VISUAL_TOKENS, device=x.device)).flatten()
            x = x.view(-1, width).index_copy(0, slots, chosen.tokens.reshape(-1, width)).view(rows, length, width)
            deepstack = chosen.deepstack
        cos, sin = text.rotary_emb(x, batch.positions)
        half = cos.shape[-1] // 2
        cos, sin = cos[:, None, :, :half], sin[:, None, :, :half]
        probes: dict[int, Probe] = {}
        for number, layer in enumerate(text.layers[:-1]):
            query, key, value = _projected(layer, x, cos, sin)
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
            x = x + layer.self_attn.o_proj(mixed.transpose(1, 2).reshape(rows, length, -1))
            x = x + layer.mlp(_rms_norm(x, layer.post_attention_layernorm))
            if number < len(deepstack):
                feature = deepstack[number].reshape(-1, width)
                x = x.view(-1, width).index_add(0, slots, feature).view(rows, length, width)
            if number in where:
                there = where[number]
                probes[number] = Probe(x.view(-1, width)[there], _attention_logits(query, key, there))
        return _rms_norm(self._answers(text.layers[-1], x, cos, sin, _Asked.of(batch)), text.norm), probes

    @staticmethod
    def _answers(layer: Any, x: Tensor, cos: Tensor, sin: Tensor, asked: _Asked) -> Tensor:
        """The last layer's output where it is asked for, [asked, width]."""
        query, key, value = _projected(layer, x, cos, sin)
        query = asked.padded(query.transpose(1, 2)[asked.row, asked.column]).transpose(1, 2)
        seen = torch.arange(x.shape[1], device=x.device) <= asked.padded(asked.column)[..., None]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen[:, None], enable_gqa=True)
        mixed = mixed.transpose(1, 2)[asked.row, asked.place].flatten(1)
        x = x[asked.row, asked.column] + layer.self_attn.o_proj(mixed)
        output: Tensor = x + layer.mlp(_rms_norm(x, layer.post_attention_layernorm))
        return output

    def token_losses(self, batch: TextBatch, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy of every asked token, and whether it is the most likely one; both [asked tokens]."""
        logits = self.model.lm_head(hidden)
        wanted = batch.targets[batch.targets != IGNORE]
        return F.cross_entropy(logits, wanted, reduction="none"), logits.argmax(-1) == wanted
