"""Keeps pictures: each reply names recent frames that later questions show again (MemER, SPECS 1.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from memrt.runtime.config import MemoryConfig
from memrt.runtime.keyframes_config import KeyframesConfig
from memrt.runtime.memory.keyframe_reply import parse_keyframe_reply
from memrt.runtime.memory.plain_text import plain_text
from memrt.runtime.memory.prompt import render_keyframes
from memrt.runtime.memory.sampling import Sampling
from memrt.runtime.memory.state import (
    HighLevelRequest,
    MemoryState,
    MemoryUpdate,
    settle,
)


@dataclass(frozen=True, slots=True)
class KeyframeMemory:
    """The state holds votes for frames, by tick; the frames themselves are the policy's to keep (`KeyframeStore`)."""

    config: MemoryConfig
    keyframes: KeyframesConfig

    @property
    def sampling(self) -> Sampling:
        """At which moments this memory looks."""
        return Sampling.of(self.keyframes)

    def initial(self) -> MemoryState:
        """No frame has a vote."""
        return MemoryState()

    def request(self, state: MemoryState, goal: str, recent: Sequence[int] = ()) -> HighLevelRequest:
        """Goal, keyframes, recent frames: what changes least comes first, so that its K/V rows are found again."""
        shown = state.votes.shown(self.sampling.settings, recent[-1], recent) if recent else ()
        return render_keyframes(self.config, self.keyframes, goal, shown, tuple(recent))

    def update(self, state: MemoryState, reply: str, goal: str = "", recent: Sequence[int] = ()) -> MemoryUpdate:
        """Votes for the frames that the reply names; an unusable reply changes none and holds the last subgoal."""
        parsed = parse_keyframe_reply(plain_text(reply))
        if parsed is None:
            return settle(state, "", goal)
        if recent:
            votes = state.votes.vote(self.sampling.settings, recent[-1], parsed.positions, recent)
            state = replace(state, votes=votes)
        return settle(state, plain_text(parsed.subtask).strip(), goal)  # JSON's escapes are undone by now
