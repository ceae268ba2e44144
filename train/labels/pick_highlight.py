"""PickHighlight: which highlighted cubes were picked up and put back.

Cubes may look alike, so the grounded memory keeps where each one was put back: it is not due again. Which others were
highlighted is not said by any completed subgoal: the spatial memory keeps it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import NamedTuple

from memrt.train.labels.wording import ORDINALS, Progress, counted, listed, named, rank, unknown_subgoal, where

PHRASES = (
    "`press the button`, `pick up the [...] highlighted cube, which is ...`, `place the cube onto the table` or "
    "`press the button to stop`"
)
_GOAL = re.compile(
    r"first press the button, then pick up all highlighted cubes, finally press the button again to stop"
)
_PRESS = re.compile(rf"press the button{where('at')}(?P<again> to stop)?")
_PICK = re.compile(
    rf"pick up the (?:(?P<ordinal>{'|'.join(ORDINALS)}) )?highlighted cube{where('at')}, which is (?P<colour>[a-z ]+)"
)
_PLACE = re.compile(rf"place the cube onto the table{where('at')}")


class _Cube(NamedTuple):
    words: str  # "cube" alone when no call saw its pick
    at: str = ""


@dataclass(frozen=True, slots=True)
class PickHighlightProgress(Progress):
    """The cubes put back, in order, and the one in the gripper."""

    pressed: bool = False
    put_back: tuple[_Cube, ...] = ()
    held: _Cube | None = None
    pressed_again: bool = False
    button_at: str = ""

    @staticmethod
    def of_goal(goal: str) -> PickHighlightProgress | None:
        """Nothing done yet; None for another task's goal."""
        return PickHighlightProgress() if _GOAL.fullmatch(goal) else None

    def begin(self, subgoal: str) -> PickHighlightProgress:
        """Picking up the k-th cube, k - 1 were put back."""
        if press := _PRESS.fullmatch(subgoal):
            if not press["again"]:
                return replace(self, pressed=False, put_back=(), held=None)
            return replace(self, pressed=True, put_back=self._all_put_back(), held=None)
        if pick := _PICK.fullmatch(subgoal):
            done = rank(pick["ordinal"] or "first", subgoal, PHRASES) - 1
            cubes = self._all_put_back()
            known = (*cubes, *[_Cube("cube")] * (done - len(cubes)))
            return replace(self, pressed=True, put_back=known[:done], held=None)
        if _PLACE.fullmatch(subgoal):
            return replace(self, pressed=True, held=self.held or _Cube("cube"))
        raise unknown_subgoal(subgoal, PHRASES)

    def finish(self, subgoal: str) -> PickHighlightProgress:
        """One cube more in the hand or back on the table, or the button pressed."""
        if press := _PRESS.fullmatch(subgoal):
            button_at = press["at"] or self.button_at
            return replace(self, pressed=True, pressed_again=bool(press["again"]), button_at=button_at)
        if pick := _PICK.fullmatch(subgoal):
            return replace(self, held=_Cube(f"{pick['colour']} cube", pick["at"] or ""))
        return replace(self, put_back=self._all_put_back(), held=None)

    def text(self, *, grounded: bool) -> str:
        """The press, the cubes put back, the cube in the gripper."""
        if not self.pressed:
            return ""
        parts = [f"pressed {named('the button', self.button_at, grounded=grounded)}"]
        if self.put_back:
            parts.append(f"picked up and put back {self._cubes(grounded=grounded)}")
        if self.held:
            parts.append(f"picked up the highlighted {self.held.words}")
        if self.pressed_again:
            parts.append("pressed the button again")
        text = f"I {listed(parts)}."
        return f"{text} I am holding it." if self.held else text

    def _all_put_back(self) -> tuple[_Cube, ...]:
        return (*self.put_back, self.held) if self.held else self.put_back

    def _cubes(self, *, grounded: bool) -> str:
        if grounded:
            return listed([named(f"the {cube.words}", cube.at, grounded=True) for cube in self.put_back])
        counts = Counter(cube.words for cube in self.put_back)
        return listed([counted(count, words) for words, count in counts.items()])
