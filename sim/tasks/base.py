"""What every memory task offers: a layout, a goal, a running step, an outcome decided from physics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from memrt.sim.scene import Scene, SceneLayout

SubgoalStyle = Literal["simple", "grounded"]
Difficulty = Literal["easy", "medium", "hard"]

EPISODE_CAP = 1300  # control steps, RoboMME


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an episode stands. `reason` says why it ended."""

    status: Literal["running", "success", "failure"] = "running"
    reason: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing that follows can change the outcome."""
        return self.status != "running"


RUNNING = Outcome()


@dataclass(frozen=True, slots=True)
class Step:
    """What has to be done next: the oracle's subgoal as data, for the expert and for wording."""

    skill: Literal["pick", "place", "press"]
    colour: str
    ordinal: int  # counts the picks from 1; also says which place belongs to which pick


class Task(Protocol):
    """Counts what physics shows. `update` runs once per control step; nothing else changes a task's state."""

    @property
    def goal(self) -> str:
        """The instruction given to the policy."""
        ...

    @property
    def repetitions(self) -> int:
        """How often the counted action is due (N)."""
        ...

    @property
    def layout(self) -> SceneLayout:
        """Where the objects stand when the episode begins."""
        ...

    @property
    def outcome(self) -> Outcome:
        """How the episode stands."""
        ...

    @property
    def step(self) -> Step:
        """What is due now."""
        ...

    def update(self, scene: Scene) -> None:
        """Look at the physics after one control step."""
        ...

    def subgoal(self, scene: Scene, style: SubgoalStyle) -> str:
        """The running step in words; grounded wording carries `<row, col>` of the front image."""
        ...

    def describe(self, scene: Scene) -> str:
        """Objects and their front-image pixels, for grounding pre-training."""
        ...
