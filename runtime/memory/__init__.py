"""Memory as pure state machines: no input or output, no clock."""

from __future__ import annotations

from memrt.runtime.config import MemoryConfig
from memrt.runtime.errors import MemrtError
from memrt.runtime.memory.history import HistoryMemory
from memrt.runtime.memory.keyframe_memory import KeyframeMemory
from memrt.runtime.memory.language import LanguageMemory
from memrt.runtime.memory.memoryless import MemorylessMemory
from memrt.runtime.memory.state import HighLevelRequest, Memory, MemoryState, MemoryUpdate, begin_call

__all__ = ["HighLevelRequest", "Memory", "MemoryState", "MemoryUpdate", "begin_call", "build_memory"]


def build_memory(config: MemoryConfig) -> Memory:
    """The state machine of `config.kind`. Raises MemrtError for `none`: an oracle's policy has nothing to remember."""
    if config.kind == "memoryless":
        return MemorylessMemory(config)
    if config.kind == "history":
        return HistoryMemory(config)
    if config.kind == "language":
        return LanguageMemory(config)
    if config.keyframes is not None:
        return KeyframeMemory(config, config.keyframes)
    raise MemrtError(
        "this policy has no high-level memory",
        expected="memory.kind memoryless, history, language or keyframes",
        found=f"`{config.kind}`",
        fix="let the oracle stand in for the high level, or choose another policy",
    )
