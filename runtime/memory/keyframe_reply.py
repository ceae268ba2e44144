"""Takes a MemER reply apart: the subtask, and which recent frames the VLM wants to remember (SPECS 1.2).

The VLM is asked for one JSON object, `{"current_subtask": "…", "keyframe_positions": [1, 4]}`, and wraps it in prose or
a code fence often enough that all three are read. Positions count the recent frames from 1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SUBTASK_KEYS = ("current_subtask", "current_primitive")
POSITIONS_KEY = "keyframe_positions"
_FENCED = re.compile(r"```[a-zA-Z]*\s*(.*?)```", re.DOTALL)
_DIGITS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class KeyframeReply:
    """What a reply said. `positions` are as it named them: those outside the recent frames are the reader's to drop."""

    subtask: str
    positions: tuple[int, ...]


def parse_keyframe_reply(text: str) -> KeyframeReply | None:
    """The first candidate that is such an object: the whole text, fenced blocks, the first balanced braces.

    None when none is; never raises. A position that is no number rejects its candidate.
    """
    for candidate in _candidates(text):
        try:
            found = _reply(json.loads(candidate))
        except (ValueError, RecursionError):
            continue
        if found is not None:
            return found
    return None


def format_keyframe_reply(reply: KeyframeReply) -> str:
    """The reply that a VLM is trained to give."""
    return json.dumps({SUBTASK_KEYS[0]: reply.subtask, POSITIONS_KEY: list(reply.positions)}, ensure_ascii=False)


def _candidates(text: str) -> Iterator[str]:
    yield text
    for block in _FENCED.finditer(text):
        yield block[1]
    balanced = _first_object(text)
    if balanced is not None:
        yield balanced


def _first_object(text: str) -> str | None:
    """From the first brace to the one that closes it; braces inside strings do not count."""
    start = text.find("{")
    depth, quoted, escaped = 0, False, False
    for index in range(start, len(text)) if start >= 0 else ():
        character = text[index]
        if escaped:
            escaped = False
        elif quoted:
            escaped, quoted = character == "\\", character != '"'
        elif character == '"':
            quoted = True
        elif character in "{}":
            depth += 1 if character == "{" else -1
            if depth == 0:
                return text[start : index + 1]
    return None


def _reply(value: Any) -> KeyframeReply | None:
    if not isinstance(value, dict):
        return None
    subtask = next((value[key] for key in SUBTASK_KEYS if key in value), None)
    positions = value.get(POSITIONS_KEY)
    if not isinstance(subtask, str) or not isinstance(positions, list | None):
        return None
    numbers = [_position(entry) for entry in positions or ()]
    if any(number is None for number in numbers):
        return None
    return KeyframeReply(subtask.strip(), tuple(number for number in numbers if number is not None))


def _position(entry: Any) -> int | None:
    """An integer, an integral float or digits; bools are none of them."""
    if type(entry) is int:
        return entry
    if type(entry) is float and entry.is_integer():
        return int(entry)
    if isinstance(entry, str) and _DIGITS.fullmatch(entry.strip()):
        return int(entry)
    return None
