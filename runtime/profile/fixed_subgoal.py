"""The high level, switched off: the same subgoal for ever, at no cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from memrt.runtime.types import Observation


@dataclass(frozen=True, slots=True)
class FixedReply:
    """The subgoal; nothing is kept."""

    subgoal: str
    state: None = None
    held: bool = False


class FixedSubgoal:
    """Implements the loop's `HighLevel`. The low level's prompt is as long as with a high level that thinks."""

    def __init__(self, subgoal: str) -> None:
        self._reply = FixedReply(subgoal)

    def initial(self) -> None:
        """There is nothing to remember."""

    def call(
        self, goal: str, observation: Observation, state: Any, *, cancelled: Callable[[], bool] | None = None
    ) -> FixedReply:
        """The subgoal."""
        return self._reply
