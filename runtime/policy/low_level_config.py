"""What the host has to know about an exported π0.5: the bundle's `ll/config.json`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from memrt.runtime.errors import MemrtError


class LowLevelModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Shapes of one exported π0.5. Every prompt begins with `bos_token`; the tokenizer itself adds nothing."""

    image_size: int  # pixels, square
    vision_tokens: int  # per view
    width: int  # of the prefix's embeddings
    expert_width: int
    layers: int
    kv_heads: int
    head_dim: int
    horizon: int
    action_dim: int  # 32 in released checkpoints: the robot's dimensions, then zeros
    max_token_len: int  # of the prompt, BOS included
    max_views: int  # the rotary table ends after max_views views, max_token_len and the horizon
    denoise_steps: int  # rows of the modulation table
    bos_token: str

    @property
    def modulation_rows(self) -> int:
        """adaRMS norms of the expert: two per layer and the final one."""
        return 2 * self.layers + 1


# Prompt lengths that kernels are tuned for, in tokens; the last one of a policy is its own max_token_len.
PROMPT_BUCKETS = (32, 64, 128)


def prefix_profiles(model: LowLevelModel) -> list[int]:
    """The longest prefix of every optimisation profile, ascending, in tokens: views 1..max_views × prompt buckets.

    Prefixes are not padded: a call's length is its views' tokens and its prompt's, anything from 2 up to the last
    value. An engine with fixed shape ranges (TensorRT) gets one profile per value, from the value before (exclusive) to
    its own, tuned for its own. The `prefix` engine's length is `embeddings`' axis 1; the `step` engines' is `keys`' and
    `values`' axis 2. Released π0.5 (256 tokens per view, 200 of prompt): 288, 320, 384, 456, 544, … 968.
    """
    prompts = [*(bucket for bucket in PROMPT_BUCKETS if bucket < model.max_token_len), model.max_token_len]
    views = range(1, model.max_views + 1)
    return sorted({count * model.vision_tokens + prompt for count in views for prompt in prompts})


def read_low_level_model(path: Path) -> LowLevelModel:
    """Decode `path`. Raises MemrtError when it is not what this version of memrt exports."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=LowLevelModel)
    except (OSError, msgspec.DecodeError) as error:
        raise MemrtError(
            f"action expert settings {path}",
            expected="the config.json of an exported low-level policy",
            found=error,
            fix="export it again",
        ) from error


def write_low_level_model(model: LowLevelModel, path: Path) -> None:
    """Write `model` as readable JSON with a stable order of keys."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(model), indent=2) + b"\n")
