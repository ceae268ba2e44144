"""The nouns of memory. A memory is a pure function from (state, reply) to state: it owns no model and no clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

MAX_HISTORY = 512  # subgoals kept; older ones are counted, so that the numbering in the prompt goes on
MAX_REPLY_CHARACTERS = 8192  # 384 tokens of spatial memory stay far below; a served VLM may ignore its token budget


@dataclass(frozen=True, slots=True)
class MemoryState:
    """Everything a policy keeps between two high-level calls. `subgoal` is "" until the first one is known."""

    history: tuple[str, ...] = ()
    history_dropped: int = 0
    action_memory: str = ""
    spatial_memory: str = ""
    subgoal: str = ""


@dataclass(frozen=True, slots=True)
class HighLevelRequest:
    """What the VLM is asked. `user` holds exactly one `<image>`, where the tokens of the front image go."""

    system: str
    user: str


@dataclass(frozen=True, slots=True)
class MemoryUpdate:
    """The outcome of one reply. `held`: the reply named no subgoal, so `subgoal` is the one that stood before."""

    state: MemoryState
    subgoal: str
    held: bool


class Memory(Protocol):
    """One way of remembering. Implementations are stateless: the state goes in and comes out."""

    def initial(self) -> MemoryState:
        """The state at the start of an episode."""
        ...

    def request(self, state: MemoryState, goal: str) -> HighLevelRequest:
        """The question that shows the VLM the goal, the current image and what is remembered."""
        ...

    def update(self, state: MemoryState, reply: str, goal: str = "") -> MemoryUpdate:
        """Take in the VLM's reply; any text is accepted.

        An empty subgoal must never reach the action expert: the last one is held, and before there is any, `goal`
        stands in for it.
        """
        ...


def settle(state: MemoryState, subgoal: str, goal: str) -> MemoryUpdate:
    """Make `subgoal` the current one, or hold the last when it is empty (SPECS 1.1)."""
    taken = subgoal or state.subgoal or goal.strip()
    return MemoryUpdate(replace(state, subgoal=taken), taken, held=not subgoal)


def remember_subgoal(state: MemoryState) -> MemoryState:
    """Append the current subgoal to the history if it differs from the last entry (SPECS 1.1)."""
    if not state.subgoal or (state.history and state.history[-1] == state.subgoal):
        return state
    history = (*state.history, state.subgoal)
    excess = max(0, len(history) - MAX_HISTORY)
    return replace(state, history=history[excess:], history_dropped=state.history_dropped + excess)
