"""ButtonUnmask and ButtonUnmaskSwap: which buttons were pressed, and which containers were picked up.

What is under the containers is not said by any completed subgoal: the spatial memory keeps it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from memrt.train.labels.wording import ORDINALS, Progress, listed, named, rank, unknown_subgoal, where

PHRASES = "`press the [...] button`, `pick up the container that hides the ... cube` or `put down the container`"
_GOAL = re.compile(
    r"first press (?P<buttons>the button|both buttons on the table), "
    r"then pick up the container hiding the (?P<first>[a-z ]+?) cube"
    r"(?:, finally pick up another container hiding the (?P<second>[a-z ]+?) cube)?"
)
_PRESS = re.compile(rf"press the (?:(?P<ordinal>{'|'.join(ORDINALS)}) )?button{where('at')}")
_PICK = re.compile(rf"pick up the container{where('at')} that hides the (?P<colour>[a-z ]+?) cube")
_PUT = re.compile(r"put down the container")


@dataclass(frozen=True, slots=True)
class ContainersProgress(Progress):
    """`colours` are the named ones, in order; picked and put down count containers."""

    buttons: int
    colours: tuple[str, ...]
    pressed: int = 0
    picked: int = 0
    put_down: int = 0
    button_at: str = ""  # of the one pressed last

    @staticmethod
    def of_goal(goal: str) -> ContainersProgress | None:
        """Nothing done yet; None for another task's goal."""
        match = _GOAL.fullmatch(goal)
        if match is None:
            return None
        colours = tuple(filter(None, (match["first"], match["second"])))
        return ContainersProgress(2 if match["buttons"].startswith("both") else 1, colours)

    def begin(self, subgoal: str) -> ContainersProgress:
        """Picking up a container, all buttons are pressed and the container before it is down again."""
        if press := _PRESS.fullmatch(subgoal):
            return replace(self, pressed=rank(press["ordinal"] or "first", subgoal, PHRASES) - 1)
        if pick := _PICK.fullmatch(subgoal):
            if pick["colour"] not in self.colours:
                raise unknown_subgoal(subgoal, f"{PHRASES}, of the goal's cubes: {listed(self.colours)}")
            done = self.colours.index(pick["colour"])
            return replace(self, pressed=self.buttons, picked=done, put_down=done)
        if _PUT.fullmatch(subgoal):
            return replace(self, pressed=self.buttons, picked=self.put_down + 1)
        raise unknown_subgoal(subgoal, PHRASES)

    def finish(self, subgoal: str) -> ContainersProgress:
        """One button or container more."""
        if press := _PRESS.fullmatch(subgoal):
            return replace(self, pressed=self.pressed + 1, button_at=press["at"] or self.button_at)
        if _PICK.fullmatch(subgoal):
            return replace(self, picked=self.picked + 1)
        return replace(self, put_down=self.put_down + 1)

    def text(self, *, grounded: bool) -> str:
        """What was pressed, then each container by what it hid."""
        if not self.pressed:
            return ""
        button = "the button" if self.buttons == 1 else "the first button"
        both = self.buttons > 1 and self.pressed == self.buttons
        parts = [f"pressed {'both buttons' if both else named(button, self.button_at, grounded=grounded)}"]
        for number, colour in enumerate(self.colours[: self.picked]):
            parts.append(f"picked up the container that hid the {colour} cube")
            if number < self.put_down:
                parts.append("put it down")
        return f"I {listed(parts)}."
