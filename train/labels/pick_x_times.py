"""PickXtimes: how often the cube was picked up and placed.

At call t the policy sees the goal, the image and m_{t-1}, and must tell which subgoal was active before. With p picks
and q places completed, p == q means that it was picking (or, after the last repetition, pressing) and p == q + 1 that
it was placing; the latter is also said in words ("I am holding it."). A held cube has no coordinates: where it was
taken from matters to nothing that follows, and can no longer be seen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from memrt.train.labels.wording import Progress, named, rank, times, unknown_subgoal, where

PHRASES = "`pick up the ... for the ... time`, `place the ... onto the target` or `press the button to stop`"
_GOAL = re.compile(r".*pick up the (?P<cube>[a-z ]+?) and place it on the target.*")
_PICK = re.compile(rf"pick up the (?P<cube>[a-z ]+?){where('at')} for the (?P<ordinal>[a-z]+) time")
_PLACE = re.compile(rf"place the (?P<cube>[a-z ]+?){where('cube_at')} onto the target{where('at')}(?: again)?")
_PRESS = re.compile(rf"press the button{where('at')} to stop")


@dataclass(frozen=True, slots=True)
class PickXtimesProgress(Progress):
    """Picks, places, the button; and where the objects that may matter again were last."""

    cube: str = ""
    picks: int = 0
    places: int = 0
    pressed: bool = False
    target_at: str = ""
    button_at: str = ""

    @staticmethod
    def of_goal(goal: str) -> PickXtimesProgress | None:
        """Nothing done yet; None for another task's goal."""
        return PickXtimesProgress() if cube_of_goal(goal) else None

    def begin(self, subgoal: str) -> PickXtimesProgress:
        """Picking for the k-th time, k - 1 were picked and placed."""
        if pick := _PICK.fullmatch(subgoal):
            done = rank(pick["ordinal"], subgoal, PHRASES) - 1
            return replace(self, cube=pick["cube"], picks=done, places=done)
        if place := _PLACE.fullmatch(subgoal):
            return replace(self, cube=place["cube"], picks=self.places + 1)
        if _PRESS.fullmatch(subgoal):
            return replace(self, places=self.picks)
        raise unknown_subgoal(subgoal, PHRASES)

    def finish(self, subgoal: str) -> PickXtimesProgress:
        """One pick, place or press more."""
        if _PICK.fullmatch(subgoal):
            return replace(self, picks=self.picks + 1)
        if place := _PLACE.fullmatch(subgoal):
            return replace(self, places=self.picks, target_at=place["at"] or self.target_at)
        press = _PRESS.fullmatch(subgoal)
        return replace(self, pressed=True, button_at=(press and press["at"]) or self.button_at)

    def text(self, *, grounded: bool) -> str:
        """Both counts, and whether the cube is in the gripper."""
        if not self.picks:
            return ""
        text = f"I picked up the {self.cube} {times(self.picks)}"
        if self.places:
            text += f" and placed it on {named('the target', self.target_at, grounded=grounded)} {times(self.places)}"
        if self.pressed:
            text += f" and pressed {named('the button', self.button_at, grounded=grounded)}"
        return f"{text}. I am holding it." if self.picks > self.places else f"{text}."


def cube_of_goal(goal: str) -> str:
    """Which cube a PickXtimes goal names, "" for another task's goal."""
    match = _GOAL.fullmatch(goal)
    return match["cube"] if match else ""
