"""Memory as pure state machines: no input or output, no clock."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import cast

from memrt.runtime.config import MemoryConfig
from memrt.runtime.errors import MemrtError
from memrt.runtime.memory.history import HistoryMemory
from memrt.runtime.memory.keyframe_memory import KeyframeMemory
from memrt.runtime.memory.language import LanguageMemory
from memrt.runtime.memory.memoryless import MemorylessMemory
from memrt.runtime.memory.state import HighLevelRequest, Memory, MemoryState, MemoryUpdate, begin_call
from memrt.runtime.memory_config import MEMORIES

__all__ = ["HighLevelRequest", "Memory", "MemoryState", "MemoryUpdate", "begin_call", "build_memory"]

_OURS: dict[str, Callable[[MemoryConfig], Memory]] = {
    "memoryless": MemorylessMemory,
    "history": HistoryMemory,
    "language": LanguageMemory,
}


def build_memory(config: MemoryConfig) -> Memory:
    """The state machine of `config.kind`: ours, or one that a package registers in the group `memrt.memories`.

    Raises MemrtError for `none`, since an oracle's policy has nothing to remember, and when a package's does not load.
    """
    if config.keyframes is not None:
        return KeyframeMemory(config, config.keyframes)
    if config.kind in _OURS:
        return _OURS[config.kind](config)
    if config.kind == "none":
        raise MemrtError(
            "this policy has no high-level memory",
            expected="memory.kind memoryless, history, language or keyframes",
            found="`none`",
            fix="let the oracle stand in for the high level, or choose another policy",
        )
    return _foreign(config)


def _foreign(config: MemoryConfig) -> Memory:
    points = {point.value: point for point in entry_points(group=MEMORIES) if point.name == config.kind}
    if len(points) != 1:
        raise MemrtError(
            f"memory.kind `{config.kind}`",
            expected=f"one installed package that registers it in `{MEMORIES}`",
            found=", ".join(sorted(points)) or "none",
            fix="uninstall all of them but one" if points else "install it",
        )
    try:
        return cast(Callable[[MemoryConfig], Memory], next(iter(points.values())).load())(config)
    except (ImportError, AttributeError) as error:
        raise MemrtError(
            f"memory.kind `{config.kind}`",
            expected="its module to load",
            found=error,
            fix="install the package that brings it again",
        ) from error
