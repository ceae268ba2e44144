"""Keeps the list of the policy's own subgoals, consecutive duplicates removed (RoboMME's QwenVL baselines)."""

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
    remember_subgoal,
    settle,
)


@dataclass(frozen=True, slots=True)
class HistoryMemory:
    """The prompt numbers the subgoals given so far, the current one included."""

    config: MemoryConfig

    def initial(self) -> MemoryState:
        """An empty history: the prompt's initial line."""
        return MemoryState()

    def request(self, state: MemoryState, goal: str, recent: Sequence[int] = ()) -> HighLevelRequest:
        """Goal, numbered history, current image."""
        return render(self.config, state, goal)

    def update(self, state: MemoryState, reply: str, goal: str = "", recent: Sequence[int] = ()) -> MemoryUpdate:
        """Append the reply's subgoal if it is a new one; a reply without one changes nothing."""
        update = settle(state, parse_reply(plain_text(reply)).subgoal, goal)
        if update.held:
            return update
        return MemoryUpdate(remember_subgoal(update.state), update.subgoal, held=False)
