"""BinFill: how many cubes of each colour are in the bin, which shows none of them.

The order of the goal is the order of the work, so a subgoal tells what must be in the bin already. "I am holding it."
tells putting into the bin from picking up.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from memrt.train.labels.wording import (
    NUMBERS,
    ORDINALS,
    Progress,
    counted,
    listed,
    named,
    rank,
    unknown_subgoal,
    where,
)

PHRASES = "`pick up the ... cube`, `put it into the bin` or `press the button`"
_GOAL = re.compile(r"put (?P<cubes>.+) into the bin, then press the button to stop")
_ASKED = re.compile(rf"(?P<count>{'|'.join(NUMBERS)}) (?P<colour>[a-z ]+?) cubes?")
_PICK = re.compile(rf"pick up the (?P<ordinal>{'|'.join(ORDINALS)}) (?P<colour>[a-z ]+?) cube{where('at')}")
_DROP = re.compile(rf"put it into the bin{where('at')}")
_PRESS = re.compile(rf"press the button{where('at')}")


@dataclass(frozen=True, slots=True)
class BinFillProgress(Progress):
    """`asked` and `done` count cubes by colour, in the goal's order; `held` is the colour in the gripper, or ""."""

    asked: tuple[tuple[str, int], ...]
    done: tuple[int, ...]
    held: str = ""
    pressed: bool = False
    bin_at: str = ""
    button_at: str = ""

    @staticmethod
    def of_goal(goal: str) -> BinFillProgress | None:
        """Nothing done yet; None for another task's goal."""
        match = _GOAL.fullmatch(goal)
        parts = [_ASKED.fullmatch(part) for part in re.split(", | and ", match["cubes"])] if match else [None]
        asked = tuple((part["colour"], NUMBERS.index(part["count"]) + 1) for part in parts if part)
        return BinFillProgress(asked, (0,) * len(asked)) if len(asked) == len(parts) else None

    def begin(self, subgoal: str) -> BinFillProgress:
        """Picking up the k-th of a colour, k - 1 of it are in the bin, and all of the colours before it."""
        if pick := _PICK.fullmatch(subgoal):
            index = self._index(pick["colour"], subgoal)
            full = tuple(count for _, count in self.asked[:index])
            own = rank(pick["ordinal"], subgoal, PHRASES) - 1
            return replace(self, done=(*full, own, *self.done[index + 1 :]), held="")
        if _DROP.fullmatch(subgoal):
            due = (colour for (colour, asked), done in zip(self.asked, self.done, strict=True) if done < asked)
            return replace(self, held=self.held or next(due, self.asked[-1][0]))
        if _PRESS.fullmatch(subgoal):
            return replace(self, done=tuple(count for _, count in self.asked), held="")
        raise unknown_subgoal(subgoal, PHRASES)

    def finish(self, subgoal: str) -> BinFillProgress:
        """One cube more in the hand or in the bin, or the button pressed."""
        if pick := _PICK.fullmatch(subgoal):
            return replace(self, held=pick["colour"])
        if drop := _DROP.fullmatch(subgoal):
            index = self._index(self.held, subgoal)
            done = tuple(count + (number == index) for number, count in enumerate(self.done))
            return replace(self, done=done, held="", bin_at=drop["at"] or self.bin_at)
        press = _PRESS.fullmatch(subgoal)
        return replace(self, pressed=True, button_at=(press and press["at"]) or self.button_at)

    def text(self, *, grounded: bool) -> str:
        """What is in the bin, and what is in the gripper."""
        parts = []
        if any(self.done):
            asked = zip(self.asked, self.done, strict=True)
            cubes = listed([counted(done, f"{colour} cube") for (colour, _), done in asked if done])
            parts.append(f"put {cubes} into {named('the bin', self.bin_at, grounded=grounded)}")
        if self.held:
            parts.append(f"picked up a {self.held} cube")
        if self.pressed:
            parts.append(f"pressed {named('the button', self.button_at, grounded=grounded)}")
        text = f"I {listed(parts)}." if parts else ""
        return f"{text} I am holding it." if self.held else text

    def _index(self, colour: str, subgoal: str) -> int:
        colours = [name for name, _ in self.asked]
        if colour not in colours:
            raise unknown_subgoal(subgoal, f"{PHRASES}, of the goal's cubes: {listed(colours)}")
        return colours.index(colour)
