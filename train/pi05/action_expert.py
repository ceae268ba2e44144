"""The action expert: a Gemma stack with adaptive RMS norms that attends to the prefix layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memrt.train.pi05.config import GemmaConfig
from memrt.train.pi05.gemma import GemmaAttention, GemmaMlp, KeyValue, RotaryTable, attend, normalise, rotary_table


class AdaptiveRmsNorm(nn.Module):
    """x̂ · (1 + scale) + shift with (scale, shift, gate) = dense(condition); it has no weight of its own."""

    def __init__(self, width: int, condition_width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(condition_width, 3 * width)

    def modulation(self, condition: Tensor) -> Tensor:
        """Condition [..., condition_width] → [..., 3, width], in the order scale, shift, gate."""
        return self.dense(condition).unflatten(-1, (3, -1))


def modulate(x: Tensor, rows: Tensor) -> Tensor:
    """Apply scale and shift of rows [..., tokens or 1, 3, width] to x [..., tokens, width]."""
    scale, shift = rows[..., 0, :], rows[..., 1, :]
    return (normalise(x) * (1.0 + scale.float()) + shift.float()).to(x.dtype)


class ExpertLayer(nn.Module):
    """One block; both residual branches are gated by their norm's third row."""

    def __init__(self, config: GemmaConfig) -> None:
        super().__init__()
        self.input_layernorm = AdaptiveRmsNorm(config.width, config.width)
        self.self_attn = GemmaAttention(config)
        self.post_attention_layernorm = AdaptiveRmsNorm(config.width, config.width)
        self.mlp = GemmaMlp(config)


class ActionExpert(nn.Module):
    """Blocks and the final adaptive norm."""

    def __init__(self, config: GemmaConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(ExpertLayer(config) for _ in range(config.depth))
        self.norm = AdaptiveRmsNorm(config.width, config.width)

    def modulation(self, condition: Tensor) -> Tensor:
        """Condition [..., width] → [..., 2·depth + 1, 3, width]: two norms per block, then the final one.

        It depends on the flow time only, so a runtime with fixed steps keeps it as a table.
        """
        norms = [norm for layer in self.layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
        return torch.stack([norm.modulation(condition) for norm in (*norms, self.norm)], dim=-3)

    def forward(
        self,
        x: Tensor,
        rows: Tensor,
        positions: Tensor,
        prefix: list[KeyValue],
        allowed: Tensor | None = None,
    ) -> Tensor:
        """Action tokens [B, draws, H, width] → the same shape, after the final norm.

        `rows` [B, draws, 2·depth+1, 3, width], or [B, draws, H, 2·depth+1, 3, width] where tokens differ in flow time
        (a chunk that begins with clean actions, SPECS 3); `positions` [B or 1, H] follow the prefix's; `prefix` holds
        keys and values [B, 1, P, d]; `allowed` is bool [B, 1, P] or None. Draws are independent noised copies of the
        same chunk: they share the prefix and do not see each other, which makes several flow times per image cheap in
        training.
        """
        table = rotary_table(positions.repeat(1, x.shape[1]), self.config.head_dim)
        return self.run(x, rows, table, prefix, allowed)

    def run(
        self, x: Tensor, rows: Tensor, table: RotaryTable, prefix: list[KeyValue], allowed: Tensor | None
    ) -> Tensor:
        """`forward` with the rotary table looked up already, for all draws."""
        draws, horizon = x.shape[1:3]
        rows = rows if rows.ndim == 6 else rows[:, :, None]
        visible = self._visible(draws, horizon, prefix[0].keys.shape[2], allowed, x.device)
        for index, layer in enumerate(self.layers):
            attention, rows_attention, rows_mlp = (
                layer.self_attn,
                rows[..., 2 * index, :, :],
                rows[..., 2 * index + 1, :, :],
            )
            normed = modulate(x, rows_attention).flatten(1, 2)
            own = attention.key_value(normed, table)
            keys = torch.cat((prefix[index].keys, own.keys), dim=2)
            values = torch.cat((prefix[index].values, own.values), dim=2)
            mixed = attention.o_proj(attend(attention.query(normed, table), keys, values, visible))
            x = x + mixed.unflatten(1, (draws, horizon)) * rows_attention[..., 2, :]
            x = x + layer.mlp(modulate(x, rows_mlp)) * rows_mlp[..., 2, :]
        return modulate(x, rows[..., -1, :, :])

    @staticmethod
    def _visible(
        draws: int, horizon: int, prefix_tokens: int, allowed: Tensor | None, device: torch.device
    ) -> Tensor | None:
        """Who sees whom, bool [B or 1, draws·H, P + draws·H]: the valid prefix, and the own draw."""
        if draws == 1 and allowed is None:
            return None
        own = torch.eye(draws, dtype=torch.bool, device=device)
        own = own.repeat_interleave(horizon, 0).repeat_interleave(horizon, 1)[None]
        if allowed is None:
            allowed = torch.ones(1, 1, prefix_tokens, dtype=torch.bool, device=device)
        batch, length = allowed.shape[0], draws * horizon
        return torch.cat((allowed.expand(batch, length, -1), own.expand(batch, -1, -1)), dim=-1)
