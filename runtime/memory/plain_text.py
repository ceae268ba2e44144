"""What of a VLM's words may be remembered, shown to it again and sent on.

A reply is cut to a bound. Control tokens go: inside a prompt one could forge a turn or an image, and a VLM may write
any token it knows. So do halves of surrogate pairs, which JSON can spell and no file or tokenizer can hold.
"""

from __future__ import annotations

import re

from memrt.runtime.memory_config import IMAGE_PLACEHOLDER

MAX_REPLY_CHARACTERS = 8192  # 384 tokens of spatial memory stay far below; a served VLM may ignore its token budget
# Qwen's. Coordinates may be wrapped in <|box_start|>…<|box_end|>, so those pass.
CONTROL_TOKENS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|vision_pad|>",
    "<|endoftext|>",
)
_CONTROL = re.compile("|".join(map(re.escape, CONTROL_TOKENS)))
_STRUCTURE = re.compile("|".join(map(re.escape, (IMAGE_PLACEHOLDER, *CONTROL_TOKENS))))


def plain_text(reply: str) -> str:
    """The part of `reply` that is plain text, bounded; text without any of that is what it was."""
    text = reply[:MAX_REPLY_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
    return _without(_CONTROL, text)


def prompt_text(text: str) -> str:
    """What of a goal or a memory is shown in a prompt: neither an image's placeholder nor a control token."""
    return _without(_STRUCTURE, text)


def _without(pattern: re.Pattern[str], text: str) -> str:
    while pattern.search(text):  # removing one can join the halves of another
        text = pattern.sub("", text)
    return text
