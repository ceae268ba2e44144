"""π0.5's action expert, written for reading: one token, one head, one layer at a time, in float64.

From the description of the model alone; it shares nothing with the training network or with the exported graphs but the
names of the checkpoint's tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

EXPERT = "paligemma_with_expert.gemma_expert.model"
Array = np.ndarray


@dataclass(frozen=True)
class PrefixCache:
    """`keys`, `values` [layers, kv_heads, P, head_dim], rotated already; `valid` bool [P]: what may be attended to."""

    keys: Array
    values: Array
    valid: Array


class ExpertReference:
    """`tensors` by openpi's names, as float64 arrays."""

    def __init__(self, tensors: Mapping[str, Array], *, layers: int, heads: int, head_dim: int) -> None:
        self.tensors = tensors
        self.layers, self.heads, self.head_dim = layers, heads, head_dim
        self.width = len(tensors["action_in_proj.bias"])

    def actions(self, noise: Array, cache: PrefixCache, steps: int, clean: Array | None = None) -> Array:
        """Euler from t = 1 to 0; the first rows are `clean` actions, which stay what they are, at time 0."""
        x = noise.astype(np.float64)
        fixed = 0 if clean is None else len(clean)
        if clean is not None:
            x[:fixed] = clean
        for step in range(steps):
            t = 1.0 - step / steps
            velocity = self.velocity(x, [0.0 if row < fixed else t for row in range(len(x))], cache)
            for row in range(fixed, len(x)):
                x[row] -= velocity[row] / steps
        return x

    def velocity(self, x: Array, times: Sequence[float], cache: PrefixCache) -> Array:
        """Noised actions [H, d], each at its own time → velocities [H, d]."""
        first_position = int(cache.valid.sum())
        conditions = [self._condition(t) for t in times]
        hidden = [self._linear("action_in_proj", row) for row in x]
        for layer in range(self.layers):
            hidden = self._layer(f"{EXPERT}.layers.{layer}", hidden, conditions, first_position, cache, layer)
        final = [self._norm(f"{EXPERT}.norm", h, c)[0] for h, c in zip(hidden, conditions, strict=True)]
        return np.stack([self._linear("action_out_proj", h) for h in final])

    def _layer(
        self, name: str, hidden: list[Array], conditions: list[Array], start: int, cache: PrefixCache, layer: int
    ) -> list[Array]:
        normed = [self._norm(f"{name}.input_layernorm", h, c) for h, c in zip(hidden, conditions, strict=True)]
        kv_heads = cache.keys.shape[1]
        keys = [self._heads(f"{name}.self_attn.k_proj", n, kv_heads) for n, _ in normed]
        values = [self._heads(f"{name}.self_attn.v_proj", n, kv_heads) for n, _ in normed]
        keys = [[self._rotate(head, start + row) for head in heads] for row, heads in enumerate(keys)]
        out = []
        for row, (residual, (token, gate)) in enumerate(zip(hidden, normed, strict=True)):
            mixed = []
            for head, query in enumerate(self._heads(f"{name}.self_attn.q_proj", token, self.heads)):
                shared = head // (self.heads // kv_heads)
                seen_keys = [cache.keys[layer, shared, i] for i in range(len(cache.valid)) if cache.valid[i]]
                seen_values = [cache.values[layer, shared, i] for i in range(len(cache.valid)) if cache.valid[i]]
                mixed.append(
                    self._attend(
                        self._rotate(query, start + row),
                        seen_keys + [own[shared] for own in keys],
                        seen_values + [own[shared] for own in values],
                    )
                )
            after = residual + gate * (self.tensors[f"{name}.self_attn.o_proj.weight"] @ np.concatenate(mixed))
            second, second_gate = self._norm(f"{name}.post_attention_layernorm", after, conditions[row])
            out.append(after + second_gate * self._mlp(f"{name}.mlp", second))
        return out

    def _condition(self, t: float) -> Array:
        half = self.width // 2
        features = np.empty(self.width)
        for i in range(half):
            period = 4e-3 * (4.0 / 4e-3) ** (i / (half - 1))
            features[i] = math.sin(2.0 * math.pi * t / period)
            features[half + i] = math.cos(2.0 * math.pi * t / period)
        return self._swish(self._linear("time_mlp_out", self._swish(self._linear("time_mlp_in", features))))

    def _norm(self, name: str, x: Array, condition: Array) -> tuple[Array, Array]:
        """The normalised token and the gate of its residual branch."""
        scale, shift, gate = np.split(self._linear(f"{name}.dense", condition), 3)
        return x / math.sqrt(sum(v * v for v in x) / len(x) + 1e-6) * (1.0 + scale) + shift, gate

    def _heads(self, name: str, x: Array, count: int) -> list[Array]:
        return np.split(self.tensors[f"{name}.weight"] @ x, count)

    def _rotate(self, head: Array, position: int) -> Array:
        half = self.head_dim // 2
        out = np.empty_like(head)
        for i in range(half):
            angle = position / 10_000.0 ** (i / half)
            out[i] = head[i] * math.cos(angle) - head[half + i] * math.sin(angle)
            out[half + i] = head[half + i] * math.cos(angle) + head[i] * math.sin(angle)
        return out

    def _attend(self, query: Array, keys: Sequence[Array], values: Sequence[Array]) -> Array:
        scores = [float(query @ key) / math.sqrt(self.head_dim) for key in keys]
        weights = [math.exp(score - max(scores)) for score in scores]
        return sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)

    def _mlp(self, name: str, x: Array) -> Array:
        gate = self.tensors[f"{name}.gate_proj.weight"] @ x
        gelu = 0.5 * gate * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (gate + 0.044715 * gate**3)))
        return self.tensors[f"{name}.down_proj.weight"] @ (gelu * (self.tensors[f"{name}.up_proj.weight"] @ x))

    def _linear(self, name: str, x: Array) -> Array:
        return self.tensors[f"{name}.weight"] @ x + self.tensors[f"{name}.bias"]

    @staticmethod
    def _swish(x: Array) -> Array:
        return x / (1.0 + np.exp(-x))
