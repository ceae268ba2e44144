"""Takes a high-level reply apart: the subgoal, then the memories in tags.

The format and its tolerances are the compressed-memory report's (appendix A.2.3) and its released code's: adapters
often lose a closing tag, and the memory must then be salvaged instead of being read out as a subgoal.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ACTION = re.compile(r"<mem>(.*?)</mem>", re.DOTALL)
_ACTION_UNCLOSED = re.compile(r"<mem>(.*?)(?:<spatial_mem>|\Z)", re.DOTALL)
_SPATIAL = re.compile(r"<spatial_mem>(.*?)</spatial_mem>", re.DOTALL)
_SPATIAL_UNCLOSED = re.compile(r"<spatial_mem>(.*)\Z", re.DOTALL)
_FIRST_TAG = re.compile(r"<mem>|<spatial_mem>")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a reply said. A memory is None when the reply has no tag for it; `subgoal` may be empty. All stripped."""

    subgoal: str
    action_memory: str | None = None
    spatial_memory: str | None = None


def parse_reply(text: str) -> Reply:
    """Never raises: text without tags is all subgoal, an unclosed memory runs to the next tag or the end."""
    first_tag = _FIRST_TAG.search(text)
    action = _ACTION.search(text) or _ACTION_UNCLOSED.search(text)
    spatial = _SPATIAL.search(text) or _SPATIAL_UNCLOSED.search(text)
    return Reply(
        subgoal=(text[: first_tag.start()] if first_tag else text).strip(),
        action_memory=action[1].strip() if action else None,
        spatial_memory=spatial[1].strip() if spatial else None,
    )


def format_reply(reply: Reply) -> str:
    """The reply a VLM is trained to give; `parse_reply` undoes it for texts without tags of their own."""
    lines = [reply.subgoal]
    if reply.action_memory is not None:
        lines.append(f"<mem>{reply.action_memory}</mem>")
    if reply.spatial_memory is not None:
        lines.append(f"<spatial_mem>{reply.spatial_memory}</spatial_mem>")
    return "\n".join(lines)
