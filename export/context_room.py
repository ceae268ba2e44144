"""Whether the longest request of a keyframe policy, and its answer, fit into the decoder's K/V rows."""

from __future__ import annotations

from tokenizers import Tokenizer

from memrt.calib.calibration_set import CalibrationSet
from memrt.runtime.config import PolicyConfig
from memrt.runtime.errors import MemrtError
from memrt.runtime.memory.prompt import render_keyframes
from memrt.runtime.policy.chat import render_chat
from memrt.runtime.policy.vlm_config import VlmConfig


def check_context(policy: PolicyConfig, config: VlmConfig, tokenizer: str, recorded: CalibrationSet) -> None:
    """Raises MemrtError when all keyframes, all recent frames, the longest recorded goal and an answer do not fit.

    `config` is the exported VLM's, `tokenizer` the text of its `tokenizer.json`. A policy that shows one image is left
    alone: how long its memory grows is the VLM's to say.
    """
    keyframes = policy.memory.keyframes
    if keyframes is None:
        return
    goal = max((sample.goal for sample in recorded.document.high_level), key=len, default="")
    older = tuple(range(keyframes.keyframes))
    recent = tuple(range(len(older), len(older) + keyframes.recent))
    request = render_keyframes(policy.memory, keyframes, goal, older, recent)
    images = [config.image_sizes[0].tokens] * (len(older) + len(recent))
    prompt = render_chat(request.system, request.user, images)
    tokens = len(Tokenizer.from_str(tokenizer).encode(prompt, add_special_tokens=False).ids)
    needed = tokens + policy.high_level.max_new_tokens
    if needed > config.capacity:
        raise MemrtError(
            f"key `high_level.context_tokens` of policy `{policy.name}`",
            expected=f"at least {needed}: {len(images)} images of {images[0]} tokens, the words, and an answer of "
            f"{policy.high_level.max_new_tokens}",
            found=config.capacity,
            fix=f"set `context_tokens: {-(-needed // 64) * 64}`, or show fewer or smaller images",
        )
