"""The network against an independent, deliberately naive reading of SPECS section 2: loops over heads and tokens."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_pi05 import random_model
from torch import Tensor

from memrt.train.pi05.config import pi05
from memrt.train.pi05.model import Pi05, time_features

LANGUAGE = "paligemma_with_expert.paligemma.model.language_model"
EXPERT = "paligemma_with_expert.gemma_expert.model"


def naive_rms(x: Tensor) -> Tensor:
    return x / math.sqrt(float((x * x).mean()) + 1e-6)


def naive_rotate(vector: Tensor, position: int) -> Tensor:
    half = len(vector) // 2
    out = vector.clone()
    for i in range(half):
        angle = position / 10_000.0 ** (2 * i / len(vector))
        cos, sin = math.cos(angle), math.sin(angle)
        out[i] = vector[i] * cos - vector[i + half] * sin
        out[i + half] = vector[i + half] * cos + vector[i] * sin
    return out


def naive_attention(queries: list[Tensor], keys: list[Tensor], values: list[Tensor]) -> list[Tensor]:
    mixed = []
    for query in queries:
        scores = torch.stack([query @ key for key in keys]) / math.sqrt(len(query))
        weights = torch.softmax(scores, 0)
        mixed.append(sum((w * v for w, v in zip(weights, values, strict=True)), torch.zeros_like(values[0])))
    return mixed


def naive_mlp(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    gate = state[f"{name}.gate_proj.weight"] @ x
    gate = 0.5 * gate * (1 + torch.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
    return state[f"{name}.down_proj.weight"] @ (gate * (state[f"{name}.up_proj.weight"] @ x))


def naive_layer(
    state: dict[str, Tensor],
    name: str,
    normed: list[Tensor],
    positions: list[int],
    prefix: tuple[list[Tensor], list[Tensor]],
    *,
    heads: int,
    head_dim: int,
) -> tuple[list[Tensor], tuple[list[Tensor], list[Tensor]]]:
    """(attention output per token, own keys and values) with one shared key/value head."""
    keys = [
        naive_rotate(state[f"{name}.self_attn.k_proj.weight"] @ x, p) for x, p in zip(normed, positions, strict=True)
    ]
    values = [state[f"{name}.self_attn.v_proj.weight"] @ x for x in normed]
    outputs = []
    for x, position in zip(normed, positions, strict=True):
        q = state[f"{name}.self_attn.q_proj.weight"] @ x
        rotated = [naive_rotate(q[h * head_dim : (h + 1) * head_dim], position) for h in range(heads)]
        mixed = naive_attention(rotated, prefix[0] + keys, prefix[1] + values)
        outputs.append(state[f"{name}.self_attn.o_proj.weight"] @ torch.cat(mixed))
    return outputs, (keys, values)


def naive_velocity(model: Pi05, embeddings: Tensor, x: Tensor, t: float) -> Tensor:
    """One sample: prefix embeddings [P, width], noised actions [H, d], flow time → velocity [H, d]."""
    state, config = {k: v.double() for k, v in model.state_dict().items()}, model.config
    heads, head_dim, count = config.prefix.heads, config.prefix.head_dim, len(embeddings)
    tokens = list(embeddings.double())
    caches = []
    for layer in range(config.prefix.depth):
        name = f"{LANGUAGE}.layers.{layer}"
        normed = [naive_rms(v) * (1 + state[f"{name}.input_layernorm.weight"]) for v in tokens]
        mixed, cache = naive_layer(state, name, normed, list(range(count)), ([], []), heads=heads, head_dim=head_dim)
        caches.append(cache)
        tokens = [v + m for v, m in zip(tokens, mixed, strict=True)]
        weight = 1 + state[f"{name}.post_attention_layernorm.weight"]
        tokens = [v + naive_mlp(state, f"{name}.mlp", naive_rms(v) * weight) for v in tokens]

    width = config.expert.width
    periods = [4e-3 * (4.0 / 4e-3) ** (i / (width // 2 - 1)) for i in range(width // 2)]
    angles = [2 * math.pi * t / period for period in periods]
    features = torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles]).double()
    swish = torch.nn.functional.silu
    condition = swish(state["time_mlp_in.weight"] @ features + state["time_mlp_in.bias"])
    condition = swish(state["time_mlp_out.weight"] @ condition + state["time_mlp_out.bias"])

    def modulate(name: str, vectors: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        dense = state[f"{name}.dense.weight"] @ condition + state[f"{name}.dense.bias"]
        scale, shift, gate = dense[:width], dense[width : 2 * width], dense[2 * width :]
        return [naive_rms(v) * (1 + scale) + shift for v in vectors], gate

    actions = [state["action_in_proj.weight"] @ row + state["action_in_proj.bias"] for row in x.double()]
    positions = list(range(count, count + len(actions)))
    for layer in range(config.expert.depth):
        name = f"{EXPERT}.layers.{layer}"
        normed, gate = modulate(f"{name}.input_layernorm", actions)
        mixed, _ = naive_layer(state, name, normed, positions, caches[layer], heads=heads, head_dim=head_dim)
        actions = [v + gate * m for v, m in zip(actions, mixed, strict=True)]
        normed, gate = modulate(f"{name}.post_attention_layernorm", actions)
        actions = [v + gate * naive_mlp(state, f"{name}.mlp", n) for v, n in zip(actions, normed, strict=True)]
    actions, _ = modulate(f"{EXPERT}.norm", actions)
    return torch.stack([state["action_out_proj.weight"] @ v + state["action_out_proj.bias"] for v in actions])


def some_inputs(model: Pi05, batch: int = 2) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    size = model.config.vision.image_size
    return torch.rand(batch, 2, size, size, 3) * 2 - 1, torch.randint(0, model.config.vocabulary, (batch, 5))


@torch.no_grad()
def test_prefix_and_expert_equal_naive_loops() -> None:
    model = random_model(300)
    images, tokens = some_inputs(model)
    prefix = model.prefix(images, tokens, torch.ones_like(tokens, dtype=torch.bool))
    x, t = torch.randn(2, 1, model.config.horizon, model.config.action_dim), torch.tensor([[0.7], [0.123]])
    velocity = model.velocity(x, model.modulation(t), prefix)
    embeddings = model.embed_prefix(images, tokens)
    for sample in range(2):
        naive = naive_velocity(model, embeddings[sample], x[sample, 0], float(t[sample, 0]))
        torch.testing.assert_close(velocity[sample, 0].double(), naive, rtol=1e-4, atol=2e-5)


@torch.no_grad()
def test_draws_of_one_prefix_do_not_see_each_other() -> None:
    model = random_model(300)
    images, tokens = some_inputs(model)
    prefix = model.prefix(images, tokens, torch.ones_like(tokens, dtype=torch.bool))
    x, t = torch.randn(2, 3, model.config.horizon, model.config.action_dim), torch.rand(2, 3)
    together = model.velocity(x, model.modulation(t), prefix)
    for draw in range(3):
        alone = model.velocity(x[:, draw : draw + 1], model.modulation(t[:, draw : draw + 1]), prefix)
        torch.testing.assert_close(together[:, draw : draw + 1], alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_every_action_may_have_its_own_flow_time() -> None:
    model = random_model(300)
    images, tokens = some_inputs(model)
    prefix = model.prefix(images, tokens, torch.ones_like(tokens, dtype=torch.bool))
    x, t = torch.randn(2, 3, model.config.horizon, model.config.action_dim), torch.rand(2, 3)
    each = t[..., None].repeat(1, 1, model.config.horizon)
    whole = model.velocity(x, model.modulation(t), prefix)
    torch.testing.assert_close(model.velocity(x, model.modulation(each), prefix), whole, rtol=1e-5, atol=1e-5)
    each[0, 1, :2] = 0.0
    changed = (model.velocity(x, model.modulation(each), prefix) - whole).abs().amax((-1, -2)) > 1e-6
    assert changed.nonzero().tolist() == [[0, 1]]


@torch.no_grad()
def test_masking_a_view_and_padding_equals_leaving_them_out() -> None:
    model = random_model(300)
    images, tokens = some_inputs(model, batch=1)
    mask = torch.tensor([[True, True, True, False, False]])
    masked = model.prefix(images, tokens, mask, view_mask=torch.tensor([[False, True]]))
    dropped = model.prefix(images[:, 1:], tokens[:, :3], mask[:, :3])
    assert masked.length.tolist() == dropped.length.tolist() == [model.config.vision.tokens + 3]
    x, rows = torch.randn(1, 1, model.config.horizon, model.config.action_dim), model.modulation(torch.tensor([[0.4]]))
    torch.testing.assert_close(model.velocity(x, rows, masked), model.velocity(x, rows, dropped), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_prefix_without_views_is_the_text_alone() -> None:
    model = random_model(300)
    images, tokens = some_inputs(model)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    prefix = model.prefix(images[:, :0], tokens, mask)
    assert prefix.length.tolist() == [5, 5]
    torch.testing.assert_close(model.embed_prefix(images[:, :0], tokens), model.language_model.embed(tokens))


def test_time_features_keep_nearby_times_apart_and_bounded() -> None:
    features = time_features(torch.tensor([0.0, 0.001, 0.5, 1.0]), 64)
    assert features.shape == (4, 64)
    torch.testing.assert_close(features[0], torch.cat((torch.zeros(32), torch.ones(32))))
    assert float((features[1] - features[0]).abs().max()) > 0.5


def test_the_real_size_has_the_released_names_and_shapes() -> None:
    with torch.device("meta"):
        model = Pi05(pi05())
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    vision = "paligemma_with_expert.paligemma.model.vision_tower.vision_model"
    expected = {
        f"{vision}.embeddings.patch_embedding.weight": (1152, 3, 14, 14),
        f"{vision}.embeddings.position_embedding.weight": (256, 1152),
        f"{vision}.encoder.layers.26.self_attn.out_proj.bias": (1152,),
        f"{vision}.encoder.layers.26.mlp.fc1.weight": (4304, 1152),
        f"{vision}.encoder.layers.0.layer_norm2.bias": (1152,),
        f"{vision}.post_layernorm.weight": (1152,),
        "paligemma_with_expert.paligemma.model.multi_modal_projector.linear.weight": (2048, 1152),
        f"{LANGUAGE}.embed_tokens.weight": (257152, 2048),
        f"{LANGUAGE}.layers.17.self_attn.q_proj.weight": (2048, 2048),
        f"{LANGUAGE}.layers.17.self_attn.k_proj.weight": (256, 2048),
        f"{LANGUAGE}.layers.17.mlp.gate_proj.weight": (16384, 2048),
        f"{LANGUAGE}.layers.17.input_layernorm.weight": (2048,),
        f"{LANGUAGE}.norm.weight": (2048,),
        f"{EXPERT}.layers.17.self_attn.q_proj.weight": (2048, 1024),
        f"{EXPERT}.layers.17.self_attn.o_proj.weight": (1024, 2048),
        f"{EXPERT}.layers.17.mlp.down_proj.weight": (1024, 4096),
        f"{EXPERT}.layers.17.input_layernorm.dense.weight": (3072, 1024),
        f"{EXPERT}.layers.17.post_attention_layernorm.dense.bias": (3072,),
        f"{EXPERT}.norm.dense.weight": (3072, 1024),
        "action_in_proj.weight": (1024, 32),
        "action_out_proj.weight": (32, 1024),
        "time_mlp_in.weight": (1024, 1024),
        "time_mlp_out.bias": (1024,),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    # 27 vision layers of 16 tensors, 18 prefix layers of 9, 18 expert layers of 11, and the 18 around them.
    assert len(shapes) == 27 * 16 + 18 * 9 + 18 * 11 + 5 + 2 + 2 + 2 + 8


def test_the_table_of_norms_is_the_share_that_need_not_reach_the_robot() -> None:
    with torch.device("meta"):
        model = Pi05(pi05())
    table_only = sum(p.numel() for n, p in model.named_parameters() if "dense" in n or "time_mlp" in n)
    expert = sum(p.numel() for n, p in model.named_parameters() if "paligemma.model" not in n)
    assert table_only / 1e6 == pytest.approx(118.5, abs=0.2)
    assert expert / 1e6 == pytest.approx(430.0, abs=2.0)
