"""Qwen's chat format as text, without a template engine.

One system turn, one user turn that may hold images, and the header of the assistant's answer:

    <|im_start|>system\\n{system}<|im_end|>\\n<|im_start|>user\\n{user}<|im_end|>\\n<|im_start|>assistant\\n

Each `<image>` in the user's text becomes `<|vision_start|>`, one `<|image_pad|>` per visual token, `<|vision_end|>`.
The tests compare it with the chat template that travels with the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

from memrt.runtime.errors import MemrtError
from memrt.runtime.memory.plain_text import CONTROL_TOKENS

IMAGE_PLACEHOLDER = "<image>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
VISION_START = "<|vision_start|>"
VISION_END = "<|vision_end|>"
IMAGE_PAD = "<|image_pad|>"
END_OF_TEXT = "<|endoftext|>"


def render_chat(system: str, user: str, visual_tokens: Sequence[int] = ()) -> str:
    """The prompt up to the point where the answer begins.

    `visual_tokens` holds the number of visual tokens of each image, in the order of the placeholders. An empty `system`
    leaves the system turn out. Refuses control tokens inside the texts and a wrong number of placeholders.
    """
    for text in (system, user):
        forged = next((token for token in CONTROL_TOKENS if token in text), None)
        if forged is not None:
            raise MemrtError(
                "prompt text",
                expected="plain text",
                found=f"the control token {forged}",
                fix="remove it from the goal, the memory or the policy's templates",
            )
    pieces = user.split(IMAGE_PLACEHOLDER)
    if len(pieces) - 1 != len(visual_tokens):
        raise MemrtError(
            "user prompt",
            expected=f"{len(visual_tokens)} {IMAGE_PLACEHOLDER} placeholder(s)",
            found=len(pieces) - 1,
            fix="let the policy's user template name each image exactly once",
        )
    body = pieces[0]
    for count, piece in zip(visual_tokens, pieces[1:], strict=True):
        body += VISION_START + IMAGE_PAD * count + VISION_END + piece
    head = f"{TURN_START}system\n{system}{TURN_END}\n" if system else ""
    return f"{head}{TURN_START}user\n{body}{TURN_END}\n{TURN_START}assistant\n"
