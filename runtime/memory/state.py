"""The nouns of memory. A memory is a pure function from (state, reply) to state: it owns no model and no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from memrt.runtime.memory.keyframes import KeyframeVotes

MAX_HISTORY = 512  # subgoals kept; older ones are counted, so that the numbering in the prompt goes on
NO_VOTES = KeyframeVotes()


@dataclass(frozen=True, slots=True)
class MemoryState:
    """Everything a policy keeps between two high-level calls. `subgoal` is "" until the first one is known.

    `goal` is the one that the last call was made under, "" before the first; `start_ns` the time of the episode's first
    observation, from which raw ticks are counted. `votes` name frames by tick; whoever calls the VLM keeps the frames.
    `pending_memory` is an action memory that no prompt shows before it is committed, None while there is none.
    `doubted` is a subgoal, without coordinates, that has to be said once more before it is followed.
    """

    history: tuple[str, ...] = ()
    history_dropped: int = 0
    action_memory: str = ""
    pending_memory: str | None = None
    doubted: str = ""
    spatial_memory: str = ""
    subgoal: str = ""
    goal: str = ""
    start_ns: int | None = None
    votes: KeyframeVotes = NO_VOTES


@dataclass(frozen=True, slots=True)
class HighLevelRequest:
    """What the VLM is asked. `user` holds one `<image>` for each image, in order.

    The images are the frames at the raw ticks `keyframes` and then `recent`, each oldest first, or, where both are
    empty, the current image alone.
    """

    system: str
    user: str
    keyframes: tuple[int, ...] = ()
    recent: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class MemoryUpdate:
    """The outcome of one reply. `held`: it named no subgoal, or one that is doubted; `subgoal` is the one before."""

    state: MemoryState
    subgoal: str
    held: bool


class Memory(Protocol):
    """One way of remembering. Implementations are stateless: the state goes in and comes out.

    A memory that looks at frames over time is told which recent frames are at hand: `recent` holds their raw ticks,
    oldest first, the last being the call's own. The same go into `request` and `update`; other memories ignore them.
    """

    def initial(self) -> MemoryState:
        """The state at the start of an episode."""
        ...

    def request(self, state: MemoryState, goal: str, recent: Sequence[int] = ()) -> HighLevelRequest:
        """The question that shows the VLM the goal, what the cameras see and what is remembered."""
        ...

    def update(self, state: MemoryState, reply: str, goal: str = "", recent: Sequence[int] = ()) -> MemoryUpdate:
        """Take in the VLM's reply; any text is accepted.

        An empty subgoal must never reach the action expert: the last one is held, and before there is any, `goal`
        stands in for it.
        """
        ...


def begin_call(memory: Memory, state: MemoryState, goal: str, on_new_goal: Literal["clear", "keep"]) -> MemoryState:
    """`state` for a call under `goal`.

    Another goal than the last call's makes its subgoal void, so that an unusable reply holds the new goal and not the
    old one's subgoal; what else is remembered is kept or cleared. The episode's clock goes on.
    """
    if state.goal in ("", goal):
        return replace(state, goal=goal)
    kept = memory.initial() if on_new_goal == "clear" else replace(state, subgoal="", pending_memory=None, doubted="")
    return replace(kept, goal=goal, start_ns=state.start_ns)


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


def forget_oldest(state: MemoryState) -> MemoryState:
    """Without the oldest subgoal of the history, which is counted, so that the numbering in the prompt goes on."""
    if not state.history:
        return state
    return replace(state, history=state.history[1:], history_dropped=state.history_dropped + 1)


def commit(state: MemoryState) -> MemoryState:
    """Make the pending action memory the one that is shown: the current subgoal has succeeded. Nothing else changes."""
    if state.pending_memory is None:
        return state
    return replace(state, action_memory=state.pending_memory, pending_memory=None)
