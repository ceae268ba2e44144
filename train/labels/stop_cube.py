"""StopCube: how many visits of the cube to the target are over."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from memrt.train.labels.wording import ORDINALS, Progress, named, rank, times, unknown_subgoal, where

PHRASES = (
    "`move to the top of the button to prepare`, `remain static for the ... visit` or "
    "`press the button to stop the cube on the target`"
)
_GOAL = re.compile(
    r"press the button to stop the cube just as it reaches the target for the "
    rf"(?P<ordinal>{'|'.join(ORDINALS)}) time"
)
_HOVER = re.compile(rf"move to the top of the button{where('at')} to prepare")
_WAIT = re.compile(r"remain static for the (?P<ordinal>[a-z]+) visit")
_PRESS = re.compile(rf"press the button{where('at')} to stop the cube on the target")


@dataclass(frozen=True, slots=True)
class StopCubeProgress(Progress):
    """`all_visits`: at which visit to press. A hand that was pushed off the button has to prepare again."""

    all_visits: int
    prepared: bool = False
    visits: int = 0
    pressed: bool = False
    button_at: str = ""

    @staticmethod
    def of_goal(goal: str) -> StopCubeProgress | None:
        """Nothing done yet; None for another task's goal."""
        match = _GOAL.fullmatch(goal)
        return StopCubeProgress(ORDINALS.index(match["ordinal"]) + 1) if match else None

    def begin(self, subgoal: str) -> StopCubeProgress:
        """Waiting for the k-th visit, k - 1 are over; pressing, all but one."""
        if _HOVER.fullmatch(subgoal):
            return replace(self, prepared=self.visits > 0)
        if wait := _WAIT.fullmatch(subgoal):
            return replace(self, prepared=True, visits=rank(wait["ordinal"], subgoal, PHRASES) - 1)
        if _PRESS.fullmatch(subgoal):
            return replace(self, prepared=True, visits=self.all_visits - 1)
        raise unknown_subgoal(subgoal, PHRASES)

    def finish(self, subgoal: str) -> StopCubeProgress:
        """The hand is over the button, one more visit is over, or the button is pressed.

        The last visit is waited for like the others, and never over: the press comes before.
        """
        one_more = min(self.visits + 1, self.all_visits - 1)
        if hover := _HOVER.fullmatch(subgoal):
            visits = one_more if self.prepared else 0  # preparing anew, the time of a visit went by
            return replace(self, prepared=True, visits=visits, button_at=hover["at"] or self.button_at)
        if _WAIT.fullmatch(subgoal):
            return replace(self, visits=one_more)
        press = _PRESS.fullmatch(subgoal)
        return replace(self, pressed=True, button_at=(press and press["at"]) or self.button_at)

    def unseen(self) -> StopCubeProgress:
        """Visits come by themselves: one that was waited for unseen is over, too."""
        return replace(self, prepared=True, visits=min(self.visits + self.prepared, self.all_visits - 1))

    def text(self, *, grounded: bool) -> str:
        """The hand is prepared, and so many visits are over."""
        if not self.prepared:
            return ""
        text = f"I moved to the top of {named('the button', self.button_at, grounded=grounded)}"
        if self.visits:
            text += f" and waited while the cube visited the target {times(self.visits)}"
        return f"{text}, then pressed the button." if self.pressed else f"{text}."
