"""A memory that counts. The VLM only names subgoals; how often each was over is counted for it, and shown in figures.

A state machine owns no model and no clock: a state goes in, another comes out. `MemoryState` has room for texts and a
list of subgoals; this one needs the list alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from memrt.runtime.config import MemoryConfig
from memrt.runtime.memory import HighLevelRequest, MemoryState, MemoryUpdate
from memrt.runtime.memory.coordinates import without_coordinates
from memrt.runtime.memory.parser import parse_reply
from memrt.runtime.memory.plain_text import plain_text
from memrt.runtime.memory.prompt import render
from memrt.runtime.memory.state import remember_subgoal, settle


@dataclass(frozen=True, slots=True)
class TallyMemory:
    """Shows the tally where the template says `{action_memory}`. Implements `memrt.runtime.memory.Memory`."""

    config: MemoryConfig

    def initial(self) -> MemoryState:
        """Nothing is done yet."""
        return MemoryState()

    def request(self, state: MemoryState, goal: str, recent: Sequence[int] = ()) -> HighLevelRequest:
        """Every subgoal but the last is over: the VLM has moved on."""
        done = Counter(without_coordinates(subgoal) for subgoal in state.history[:-1])
        word = self.config.settings.get("nothing", "nothing")
        tally = "; ".join(f"{subgoal}: {count}" for subgoal, count in done.items()) or word
        return render(self.config, replace(state, action_memory=tally), goal)

    def update(self, state: MemoryState, reply: str, goal: str = "", recent: Sequence[int] = ()) -> MemoryUpdate:
        """Any text is accepted. A reply without a subgoal holds the last one and changes nothing."""
        update = settle(state, parse_reply(plain_text(reply)).subgoal, goal)
        return update if update.held else replace(update, state=remember_subgoal(update.state))
