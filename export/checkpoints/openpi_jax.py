"""openpi's JAX parameters under its PyTorch names: which array, which slice of it, and how its axes are turned.

Layers are stacked along the first axis. Flax keeps kernels as [in, out] and attention with the heads as axes of their
own; PyTorch keeps everything as [out, in]. The `_1` arrays are the action expert's. The transforms are torch
functions, so that shapes can be asked for on the meta device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from memrt.export.checkpoints.pi05_sizes import EXPERT, KV_HEADS, PREFIX, TOWER, VISION_HEADS
from memrt.export.checkpoints.source import Shape
from memrt.runtime.errors import MemrtError

Turn = Callable[[Tensor], Tensor]
PROJECTOR = "paligemma_with_expert.paligemma.model.multi_modal_projector.linear"
IMG, BLOCK, LLM = "PaliGemma/img", "PaliGemma/img/Transformer/encoderblock", "PaliGemma/llm"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a tensor comes from: `turn(array[layer])`, or `turn(array)` where nothing is stacked."""

    array: str
    turn: Turn
    layer: int | None = None

    def shape(self, array: Shape) -> Shape:
        """The tensor's shape, from the array's."""
        part = array if self.layer is None else array[1:]
        return tuple(self.turn(torch.empty(part, device="meta")).shape)


def as_is(x: Tensor) -> Tensor:
    """Norms, biases of dense layers, the embedding table."""
    return x


def kernel(x: Tensor) -> Tensor:
    """Dense kernel [in, out] → weight [out, in]."""
    return x.T


def patches(x: Tensor) -> Tensor:
    """Convolution [height, width, in, out] → [out, in, height, width]."""
    return x.permute(3, 2, 0, 1)


def flat_positions(x: Tensor) -> Tensor:
    """[1, tokens, width] → [tokens, width]."""
    return x.flatten(0, 1)


def heads_in(x: Tensor) -> Tensor:
    """Vision query, key or value kernel [in, heads, head_dim] → [heads · head_dim, in]."""
    return x.flatten(1).T


def heads_bias(x: Tensor) -> Tensor:
    """[heads, head_dim] → [heads · head_dim]."""
    return x.flatten()


def heads_out(x: Tensor) -> Tensor:
    """Output projection [heads, head_dim, out] → [out, heads · head_dim], of the tower and of both Gemmas."""
    return x.flatten(0, 1).T


def queries(x: Tensor) -> Tensor:
    """Gemma's [heads, in, head_dim] → [heads · head_dim, in]."""
    return x.transpose(1, 2).flatten(0, 1)


def keys(x: Tensor) -> Tensor:
    """The first of [2, kv_heads, in, head_dim] → [kv_heads · head_dim, in]."""
    return queries(x[0])


def values(x: Tensor) -> Tensor:
    """The second of [2, kv_heads, in, head_dim] → [kv_heads · head_dim, in]."""
    return queries(x[1])


def gate(x: Tensor) -> Tensor:
    """The first of [2, in, mlp] → [mlp, in]."""
    return x[0].T


def up(x: Tensor) -> Tensor:
    """The second of [2, in, mlp] → [mlp, in]."""
    return x[1].T


_SINGLE: tuple[tuple[str, str, Turn], ...] = (
    (f"{TOWER}embeddings.patch_embedding.weight", f"{IMG}/embedding/kernel", patches),
    (f"{TOWER}embeddings.patch_embedding.bias", f"{IMG}/embedding/bias", as_is),
    (f"{TOWER}embeddings.position_embedding.weight", f"{IMG}/pos_embedding", flat_positions),
    (f"{TOWER}post_layernorm.weight", f"{IMG}/Transformer/encoder_norm/scale", as_is),
    (f"{TOWER}post_layernorm.bias", f"{IMG}/Transformer/encoder_norm/bias", as_is),
    (f"{PROJECTOR}.weight", f"{IMG}/head/kernel", kernel),
    (f"{PROJECTOR}.bias", f"{IMG}/head/bias", as_is),
    (f"{PREFIX}embed_tokens.weight", f"{LLM}/embedder/input_embedding", as_is),
    (f"{PREFIX}norm.weight", f"{LLM}/final_norm/scale", as_is),
    (f"{EXPERT}norm.dense.weight", f"{LLM}/final_norm_1/Dense_0/kernel", kernel),
    (f"{EXPERT}norm.dense.bias", f"{LLM}/final_norm_1/Dense_0/bias", as_is),
    *(
        (f"{name}.{torch_side}", f"{name}/{jax_side}", turn)
        for name in ("action_in_proj", "action_out_proj", "time_mlp_in", "time_mlp_out")
        for torch_side, jax_side, turn in (("weight", "kernel", kernel), ("bias", "bias", as_is))
    ),
)
_VISION: tuple[tuple[str, str, Turn], ...] = (
    *((f"layer_norm{n + 1}.weight", f"LayerNorm_{n}/scale", as_is) for n in (0, 1)),
    *((f"layer_norm{n + 1}.bias", f"LayerNorm_{n}/bias", as_is) for n in (0, 1)),
    *((f"mlp.fc{n + 1}.weight", f"MlpBlock_0/Dense_{n}/kernel", kernel) for n in (0, 1)),
    *((f"mlp.fc{n + 1}.bias", f"MlpBlock_0/Dense_{n}/bias", as_is) for n in (0, 1)),
    *(
        (f"self_attn.{name[0]}_proj.{torch_side}", f"MultiHeadDotProductAttention_0/{name}/{jax_side}", turn)
        for name in ("query", "key", "value")
        for torch_side, jax_side, turn in (("weight", "kernel", heads_in), ("bias", "bias", heads_bias))
    ),
    ("self_attn.out_proj.weight", "MultiHeadDotProductAttention_0/out/kernel", heads_out),
    ("self_attn.out_proj.bias", "MultiHeadDotProductAttention_0/out/bias", as_is),
)


def _gemma(suffix: str) -> tuple[tuple[str, str, Turn], ...]:
    return (
        ("self_attn.q_proj.weight", f"attn/q_einsum{suffix}/w", queries),
        ("self_attn.k_proj.weight", f"attn/kv_einsum{suffix}/w", keys),
        ("self_attn.v_proj.weight", f"attn/kv_einsum{suffix}/w", values),
        ("self_attn.o_proj.weight", f"attn/attn_vec_einsum{suffix}/w", heads_out),
        ("mlp.gate_proj.weight", f"mlp{suffix}/gating_einsum", gate),
        ("mlp.up_proj.weight", f"mlp{suffix}/gating_einsum", up),
        ("mlp.down_proj.weight", f"mlp{suffix}/linear", kernel),
    )


_NORMS = (("input_layernorm", "pre_attention_norm"), ("post_attention_layernorm", "pre_ffw_norm"))
_PREFIX = (*_gemma(""), *((f"{ours}.weight", f"{theirs}/scale", as_is) for ours, theirs in _NORMS))
_EXPERT: tuple[tuple[str, str, Turn], ...] = (
    *_gemma("_1"),
    *((f"{ours}.dense.weight", f"{theirs}_1/Dense_0/kernel", kernel) for ours, theirs in _NORMS),
    *((f"{ours}.dense.bias", f"{theirs}_1/Dense_0/bias", as_is) for ours, theirs in _NORMS),
)


def origins(arrays: Mapping[str, Shape], what: str) -> dict[str, Origin]:
    """PyTorch name → origin, for all tensors of a π0.5 whose JAX arrays have these names and shapes.

    Raises MemrtError when arrays are missing or left over (LoRA adapters of a fine-tuning, a π0), and for attention
    heads that cannot be told from shapes later.
    """
    found = dict(_origins(arrays))
    missing = sorted({origin.array for origin in found.values()} - arrays.keys())
    unused = sorted(arrays.keys() - {origin.array for origin in found.values()})
    if missing or unused:
        raise MemrtError(
            what,
            expected="the arrays of openpi's π0.5",
            found=f"{len(missing)} missing {missing[:2]}, {len(unused)} unknown {unused[:2]}",
            fix="export a full π0.5 checkpoint; merge LoRA weights with openpi first",
        )
    heads = arrays[f"{BLOCK}/MultiHeadDotProductAttention_0/query/kernel"][2]
    kv_heads = {arrays[f"{LLM}/layers/attn/kv_einsum{suffix}/w"][2] for suffix in ("", "_1")}
    if heads != VISION_HEADS or kv_heads != {KV_HEADS}:
        raise MemrtError(
            what,
            expected=f"{VISION_HEADS} heads in the vision tower and {KV_HEADS} key/value head in each Gemma",
            found=f"{heads} and {sorted(kv_heads)}",
            fix="export a checkpoint of openpi's released sizes",
        )
    return found


def _origins(arrays: Mapping[str, Shape]) -> Iterator[tuple[str, Origin]]:
    for name, array, turn in _SINGLE:
        yield name, Origin(array, turn)
    for stack, prefix, table in (
        (f"{BLOCK}/", f"{TOWER}encoder.layers.", _VISION),
        (f"{LLM}/layers/", f"{PREFIX}layers.", _PREFIX),
        (f"{LLM}/layers/", f"{EXPERT}layers.", _EXPERT),
    ):
        for name, array, turn in table:
            layers = arrays[stack + array][0] if stack + array in arrays else 1
            for layer in range(layers):
                yield f"{prefix}{layer}.{name}", Origin(stack + array, turn, layer)
