"""The oracle high level: the simulator's own subgoals stand in for the VLM, to measure the action expert alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from memrt.runtime.types import Observation
from memrt.sim.env import TabletopEnv
from memrt.sim.tasks.base import SubgoalStyle


@dataclass(frozen=True, slots=True)
class OracleReply:
    """The running subgoal; an oracle keeps nothing and never holds."""

    subgoal: str
    state: None = None
    held: bool = False


class OracleHighLevel:
    """Names the subgoal from the simulator's state. Reads no pixels."""

    def __init__(self, env: TabletopEnv, style: SubgoalStyle) -> None:
        self._env = env
        self._style = style

    def initial(self) -> None:
        """There is nothing to remember."""

    def call(
        self, goal: str, observation: Observation, state: Any, *, cancelled: Callable[[], bool] | None = None
    ) -> OracleReply:
        """The subgoal that is due now."""
        return OracleReply(self._env.oracle_subgoal(self._style))
