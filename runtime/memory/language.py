"""Keeps a text that the VLM itself rewrites: the compressed-memory report's action memory, and its spatial memory.

MEM's memory differs in one rule, `commit: on_success`: what the VLM writes stays pending until the subgoal has
succeeded, so that failed attempts never enter the memory. It has when the VLM itself moves on to another subgoal, or
when an operator says so (`state.commit`). What is seen is no attempt: the spatial memory is always taken.

`change_of_mind: said_twice` is ours. Whoever finishes a step writes so into the memory and names the next one. A reply
that names another step and remembers nothing new has not finished anything: it is held until the next reply agrees. One
misjudged frame would otherwise press a button or take a cube that ends the episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from memrt.runtime.config import MemoryConfig
from memrt.runtime.memory.coordinates import without_coordinates
from memrt.runtime.memory.parser import Reply, parse_reply
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
        if self.config.change_of_mind == "said_twice":
            if _changes_its_mind(state, parsed) and without_coordinates(parsed.subgoal) != state.doubted:
                return self._doubted(state, parsed)
            state = replace(state, doubted="")
        if parsed.action_memory is not None:
            state = replace(state, pending_memory=parsed.action_memory)
        if self.config.commit == "every_reply" or _moves_on(state, parsed.subgoal):
            state = commit(state)
        if self.config.spatial and parsed.spatial_memory is not None:
            state = replace(state, spatial_memory=parsed.spatial_memory)
        update = settle(state, parsed.subgoal, goal)
        if update.held:
            return update
        return MemoryUpdate(remember_subgoal(update.state), update.subgoal, held=False)

    def _doubted(self, state: MemoryState, parsed: Reply) -> MemoryUpdate:
        """The last subgoal goes on; what was seen is taken."""
        state = replace(state, doubted=without_coordinates(parsed.subgoal))
        if self.config.spatial and parsed.spatial_memory is not None:
            state = replace(state, spatial_memory=parsed.spatial_memory)
        return MemoryUpdate(state, state.subgoal, held=True)


def _changes_its_mind(state: MemoryState, parsed: Reply) -> bool:
    """Whether a reply moves on to another subgoal without a reason in its action memory."""
    last = state.action_memory if state.pending_memory is None else state.pending_memory
    written = last if parsed.action_memory is None else parsed.action_memory
    return _moves_on(state, parsed.subgoal) and without_coordinates(written) == without_coordinates(last)


def _moves_on(state: MemoryState, subgoal: str) -> bool:
    """Whether `subgoal` is another one than the VLM named last.

    A coordinate follows its object from image to image: with another one it is the same subgoal.
    """
    if not subgoal or not state.history or state.subgoal != state.history[-1]:
        return False
    return without_coordinates(subgoal) != without_coordinates(state.subgoal)
