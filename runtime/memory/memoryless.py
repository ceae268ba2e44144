"""Keeps nothing: each call sees the goal and the current image alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from memrt.runtime.config import MemoryConfig
from memrt.runtime.memory.parser import parse_reply
from memrt.runtime.memory.plain_text import plain_text
from memrt.runtime.memory.prompt import render
from memrt.runtime.memory.state import (
    HighLevelRequest,
    MemoryState,
    MemoryUpdate,
    settle,
)


@dataclass(frozen=True, slots=True)
class MemorylessMemory:
    """The state holds the current subgoal only, and no prompt shows it."""

    config: MemoryConfig

    def initial(self) -> MemoryState:
        """Nothing known yet."""
        return MemoryState()

    def request(self, state: MemoryState, goal: str, recent: Sequence[int] = ()) -> HighLevelRequest:
        """The same text for every call of an episode."""
        return render(self.config, state, goal)

    def update(self, state: MemoryState, reply: str, goal: str = "", recent: Sequence[int] = ()) -> MemoryUpdate:
        """The reply's subgoal, or the last one when it names none."""
        return settle(state, parse_reply(plain_text(reply)).subgoal, goal)
