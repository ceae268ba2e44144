"""SwingXtimes: how often the cube was over each target.

The image shows whether the cube is in the gripper, so the memory says it only where nothing else differs: a cube
dropped on its way has to be picked up again, and what was visited stays visited.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from memrt.train.labels.wording import NUMBERS, Progress, listed, named, rank, times, unknown_subgoal, where

PHRASES = (
    "`pick up the ... cube`, `move to the top of the ...-side target for the ... time`, "
    "`put the ... cube on the table` or `press the button`"
)
SIDES = ("right-side target", "left-side target")  # in the order of the visits
_GOAL = re.compile(
    r"pick up the (?P<cube>[a-z ]+?), move it to the right-side target and then to the left-side target"
    rf"(?:, repeating this right-to-left swing motion (?P<count>{'|'.join(NUMBERS)}) times)?"
    r", then put down the cube and press the button to stop"
)
_PICK = re.compile(rf"pick up the (?P<cube>[a-z ]+?){where('at')}")
_CARRY = re.compile(
    rf"move to the top of the (?P<side>{'|'.join(SIDES)}){where('at')} for the (?P<ordinal>[a-z]+) time"
)
_PUT = re.compile(rf"put the (?P<cube>[a-z ]+?){where('at')} on the table")
_PRESS = re.compile(rf"press the button{where('at')}")


@dataclass(frozen=True, slots=True)
class SwingXtimesProgress(Progress):
    """Visits to the targets, right and left in turn; `all_visits` is how many the goal asks for."""

    cube: str
    all_visits: int
    picked: bool = False
    visits: int = 0
    put_down: bool = False
    pressed: bool = False
    target_at: tuple[str, str] = ("", "")
    button_at: str = ""

    @staticmethod
    def of_goal(goal: str) -> SwingXtimesProgress | None:
        """Nothing done yet; None for another task's goal."""
        match = _GOAL.fullmatch(goal)
        if match is None:
            return None
        return SwingXtimesProgress(match["cube"], all_visits=2 * (NUMBERS.index(match["count"] or "one") + 1))

    def begin(self, subgoal: str) -> SwingXtimesProgress:
        """Going to the left-side target for the k-th time, it was over the right-side one k times."""
        if _PICK.fullmatch(subgoal):
            return replace(self, picked=self.visits > 0)
        if carry := _CARRY.fullmatch(subgoal):
            rounds = rank(carry["ordinal"], subgoal, PHRASES) - 1
            return replace(self, picked=True, visits=2 * rounds + SIDES.index(carry["side"]))
        if _PUT.fullmatch(subgoal):
            return replace(self, picked=True, visits=self.all_visits)
        if _PRESS.fullmatch(subgoal):
            return replace(self, picked=True, visits=self.all_visits, put_down=True)
        raise unknown_subgoal(subgoal, PHRASES)

    def finish(self, subgoal: str) -> SwingXtimesProgress:
        """One visit more, the cube in the hand or on the table, or the button pressed."""
        if _PICK.fullmatch(subgoal):  # the cube was dropped if it had been picked before: a visit that went on unseen
            return replace(self, picked=True, visits=self.visits + self.picked)
        if carry := _CARRY.fullmatch(subgoal):
            at = list(self.target_at)
            side = SIDES.index(carry["side"])
            at[side] = carry["at"] or at[side]
            return replace(self, visits=self.visits + 1, target_at=(at[0], at[1]))
        if _PUT.fullmatch(subgoal):
            return replace(self, put_down=True)
        press = _PRESS.fullmatch(subgoal)
        return replace(self, pressed=True, button_at=(press and press["at"]) or self.button_at)

    def unseen(self) -> SwingXtimesProgress:
        """The next step in order."""
        if not self.picked:
            return replace(self, picked=True)
        done = self.visits == self.all_visits
        return replace(self, visits=self.visits + (not done), put_down=done)

    def text(self, *, grounded: bool) -> str:
        """The visits to either side."""
        if not self.picked:
            return ""
        if not self.visits:
            return f"I picked up the {self.cube}."
        counts = ((self.visits + 1) // 2, self.visits // 2)
        swings = [
            f"to {named(f'the {side}', at, grounded=grounded)} {times(count)}"
            for side, at, count in zip(SIDES, self.target_at, counts, strict=True)
            if count
        ]
        parts = [f"moved the {self.cube} {listed(swings)}"]
        if self.put_down:
            parts.append("put it down")
        if self.pressed:
            parts.append(f"pressed {named('the button', self.button_at, grounded=grounded)}")
        return f"I {', then '.join(parts)}."
