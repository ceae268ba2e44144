"""Keeps a text that the VLM itself rewrites: the compressed-memory report's action memory, and its spatial memory.

MEM's memory differs in one rule, `commit: on_success`: what the VLM writes stays pending until the subgoal has
succeeded, so that failed attempts never enter the memory. It has when the VLM itself moves on to another subgoal, or
when an operator says so (`state.commit`). What is seen is no attempt: the spatial memory is always taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from memrt.runtime.config import MemoryConfig
from memrt.runtime.memory.coordinates import without_coordinates
from memrt.runtime.memory.parser import parse_reply
from memrt.runtime.memory.plain_text import plain_text
from memrt.runtime.memory.prompt import render
from memrt.runtime.memory.state import (
    HighLevelRequest,
    MemoryState,
    MemoryUpdate,
    commit,
    remember_subgoal,
    settle,
)


@dataclass(frozen=True, slots=True)
class LanguageMemory:
    """Each call shows the last memories and takes the new ones; a memory the reply leaves out stays as it was."""

    config: MemoryConfig

    def initial(self) -> MemoryState:
        """The policy's initial memory texts."""
        spatial = self.config.initial_spatial_memory if self.config.spatial else ""
        return MemoryState(action_memory=self.config.initial_memory, spatial_memory=spatial)

    def request(self, state: MemoryState, goal: str, recent: Sequence[int] = ()) -> HighLevelRequest:
        """Goal, history where the policy shows it, memories, current image."""
        return render(self.config, state, goal)

    def update(self, state: MemoryState, reply: str, goal: str = "", recent: Sequence[int] = ()) -> MemoryUpdate:
        """Memories are taken even from a reply without a subgoal: they are parsed independently (SPECS 1.1)."""
        parsed = parse_reply(plain_text(reply))
        if parsed.action_memory is not None:
            state = replace(state, pending_memory=parsed.action_memory)
        if self.config.commit == "every_reply" or _succeeded(state, parsed.subgoal):
            state = commit(state)
        if self.config.spatial and parsed.spatial_memory is not None:
            state = replace(state, spatial_memory=parsed.spatial_memory)
        update = settle(state, parsed.subgoal, goal)
        if update.held:
            return update
        return MemoryUpdate(remember_subgoal(update.state), update.subgoal, held=False)


def _succeeded(state: MemoryState, subgoal: str) -> bool:
    """Whether a reply with `subgoal` moves on from the one that the VLM named last.

    A coordinate follows its object from image to image: with another one it is the same subgoal.
    """
    if not subgoal or not state.history or state.subgoal != state.history[-1]:
        return False
    return without_coordinates(subgoal) != without_coordinates(state.subgoal)
