"""Writes the action memories that the high level is trained to produce, from the subgoals of a demonstration.

The compressed-memory report asks a large model for these texts (appendix A.1). Its rules are kept here - first person,
past tense, counts compressed, nothing about what is still to come or how it was done, at most 50 words (90 grounded),
ASCII - but the texts are written by this function, so that the same demonstration always gives the same label.

The wording serves the chain of calls: at call t the policy sees the goal, the image and m_{t-1}, and must tell which
subgoal was active before. With p picks and q places completed, p == q means that it was picking (or, after the last
repetition, pressing) and p == q + 1 that it was placing; the latter is also said in words ("I am holding it."). A held
cube has no coordinates: where it was taken from matters to nothing that follows, and can no longer be seen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from memrt.runtime.errors import MemrtError
from memrt.runtime.memory.coordinates import without_coordinates

Style = Literal["simple", "grounded"]
INITIAL_MEMORY = "No actions had been completed yet."  # report, appendix A.1 and its released code
WORD_LIMIT: dict[Style, int] = {"simple": 50, "grounded": 90}  # appendix A.1.1 and A.1.2: "under" these

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_TIMES = ("once", "twice", *(f"{n} times" for n in ("three", "four", "five", "six", "seven", "eight", "nine", "ten")))
_WHERE = r"(?: (?P<{}><\d+, \d+>))?"  # the coordinates of one object reference, absent from simple subgoals
_PICK = re.compile(rf"pick up the (?P<cube>[a-z ]+?){_WHERE.format('at')} for the (?P<ordinal>[a-z]+) time")
_PLACE = re.compile(
    rf"place the (?P<cube>[a-z ]+?){_WHERE.format('cube_at')} onto the target{_WHERE.format('at')}(?: again)?"
)
_PRESS = re.compile(rf"press the button{_WHERE.format('at')} to stop")


@dataclass(frozen=True, slots=True)
class Progress:
    """What has been completed: picks, places, the button; and where the objects that may matter again were last."""

    cube: str = ""
    picks: int = 0
    places: int = 0
    pressed: bool = False
    target_at: str = ""
    button_at: str = ""

    @property
    def holding(self) -> bool:
        """The cube is in the gripper."""
        return self.picks > self.places


def label(goal: str, previous_subgoals: Sequence[str], style: Style, current_subgoal: str | None = None) -> str:
    """The memory that a policy should hold after completing `previous_subgoals` (consecutive duplicates removed).

    `current_subgoal`, where known, reveals a failed attempt: after a dropped cube the demonstration asks for the same
    pick again, and the place before it must not be counted. An empty entry is a subgoal too short for any call to have
    seen it; the ones after it make up for it. `goal` names the task; only PickXtimes is known so far.
    Raises MemrtError for another goal or for a subgoal outside the task's phrasing.
    """
    _check_goal(goal)
    progress = completed(previous_subgoals, current_subgoal)
    return _phrase(progress, grounded=style == "grounded")


def label_pair(
    goal: str, previous_subgoals: Sequence[str], current_subgoal: str, previous_segment: int, style: Style
) -> tuple[str, str]:
    """The memories before and after one call: (m_{t-1}, m_t), equal while the subgoal has not changed.

    `previous_segment` is the index, within the episode's subgoals, of the one that was active at the call before, or -1
    at the first call. It exceeds the current one when the cube was dropped: the memory is then taken back.
    """
    subgoals = [*previous_subgoals, current_subgoal]
    index = min(max(previous_segment, 0), len(subgoals))
    before = label(goal, subgoals[:index], style, subgoals[index] if index < len(subgoals) else None)
    return before, label(goal, previous_subgoals, style, current_subgoal)


def completed(previous_subgoals: Sequence[str], current_subgoal: str | None = None) -> Progress:
    """The progress after `previous_subgoals`; each counts as completed unless the one after it takes it back."""
    progress = Progress()
    for subgoal in filter(None, previous_subgoals):
        progress = _finish(_begin(progress, subgoal), subgoal)
    return progress if current_subgoal is None else _begin(progress, current_subgoal)


def _begin(progress: Progress, subgoal: str) -> Progress:
    """Correct the counts by what a subgoal presupposes: picking for the k-th time, k - 1 were picked and placed."""
    if pick := _PICK.fullmatch(subgoal):
        if pick["ordinal"] not in _ORDINALS:
            raise _unknown(subgoal)
        done = _ORDINALS.index(pick["ordinal"])
        return replace(progress, cube=pick["cube"], picks=done, places=done)
    if place := _PLACE.fullmatch(subgoal):
        return replace(progress, cube=place["cube"], picks=progress.places + 1)
    if _PRESS.fullmatch(subgoal):
        return replace(progress, places=progress.picks)
    raise _unknown(subgoal)


def _finish(progress: Progress, subgoal: str) -> Progress:
    if _PICK.fullmatch(subgoal):
        return replace(progress, picks=progress.picks + 1)
    if place := _PLACE.fullmatch(subgoal):
        return replace(progress, places=progress.picks, target_at=place["at"] or progress.target_at)
    press = _PRESS.fullmatch(subgoal)
    return replace(progress, pressed=True, button_at=(press and press["at"]) or progress.button_at)


def _phrase(progress: Progress, *, grounded: bool) -> str:
    if not progress.picks:
        return INITIAL_MEMORY
    target = _at("the target", progress.target_at, grounded)
    text = f"I picked up the {progress.cube} {_times(progress.picks)}"
    if progress.places:
        text += f" and placed it on {target} {_times(progress.places)}"
    if progress.pressed:
        text += f" and pressed {_at('the button', progress.button_at, grounded)}"
    return f"{text}. I am holding it." if progress.holding else f"{text}."


def _at(name: str, coordinate: str, grounded: bool) -> str:
    return f"{name} {coordinate}" if grounded and coordinate else name


def _times(count: int) -> str:
    return _TIMES[count - 1]


def _check_goal(goal: str) -> None:
    words = without_coordinates(goal)
    if not ("pick up the" in words and "place it on the target" in words):
        raise MemrtError(
            "no memory labels for this goal",
            expected="a PickXtimes goal (`pick up the ... cube and place it on the target, ...`)",
            found=repr(goal),
            fix="add the task's phrasing to train/memory_labels.py",
        )


def _unknown(subgoal: str) -> MemrtError:
    return MemrtError(
        "no memory label for this subgoal",
        expected="`pick up the ... for the ... time`, `place the ... onto the target` or `press the button to stop`",
        found=repr(subgoal),
        fix="record it in the phrasing of sim's tasks, or add the phrasing to train/memory_labels.py",
    )
