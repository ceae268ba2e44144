"""Writes the action memories that the high level is trained to produce, from the subgoals of a demonstration.

The compressed-memory report asks a large model for these texts (appendix A.1). Its rules are kept here - first person,
past tense, counts compressed, nothing about what is still to come or how it was done, at most 50 words (90 grounded),
ASCII - but the texts are written by rule, so that the same demonstration always gives the same label. The goal tells
the task; each task's file says what its memory has to tell apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from memrt.runtime.errors import MemrtError
from memrt.runtime.memory.coordinates import without_coordinates
from memrt.train.labels.bin_fill import BinFillProgress
from memrt.train.labels.containers import ContainersProgress
from memrt.train.labels.pick_highlight import PickHighlightProgress
from memrt.train.labels.pick_x_times import PickXtimesProgress
from memrt.train.labels.stop_cube import StopCubeProgress
from memrt.train.labels.swing_x_times import SwingXtimesProgress
from memrt.train.labels.wording import INITIAL_MEMORY, Progress, Style

_OF_GOAL: dict[str, Callable[[str], Progress | None]] = {
    "BinFill": BinFillProgress.of_goal,
    "PickXtimes": PickXtimesProgress.of_goal,
    "SwingXtimes": SwingXtimesProgress.of_goal,
    "StopCube": StopCubeProgress.of_goal,
    "ButtonUnmask, ButtonUnmaskSwap": ContainersProgress.of_goal,
    "PickHighlight": PickHighlightProgress.of_goal,
}


def label(goal: str, previous_subgoals: Sequence[str], style: Style, current_subgoal: str | None = None) -> str:
    """The memory that a policy should hold after completing `previous_subgoals` (consecutive duplicates removed).

    `current_subgoal`, where known, reveals a failed attempt: after a dropped cube the demonstration asks for the same
    pick again, and the place before it must not be counted. An empty entry is a subgoal too short for any call to have
    seen it. Raises MemrtError for a goal of no known task or for a subgoal outside the task's phrasing.
    """
    progress = completed(goal, previous_subgoals, current_subgoal)
    return progress.text(grounded=style == "grounded") or INITIAL_MEMORY


def label_pair(
    goal: str, previous_subgoals: Sequence[str], current_subgoal: str, previous_segment: int, style: Style
) -> tuple[str, str]:
    """The memories before and after one call: (m_{t-1}, m_t), equal while the subgoal has not changed.

    `previous_segment` is the index, within the episode's subgoals, of the one that was active at the call before, or -1
    at the first call. It exceeds the current one when the cube was dropped: the memory is then taken back. Where no
    call had seen the pick, the memory before still tells its colour: only the pick that is due again is recorded.
    """
    subgoals = [*previous_subgoals, current_subgoal]
    index = min(max(previous_segment, 0), len(subgoals))
    before = label(goal, subgoals[:index], style, subgoals[index] if index < len(subgoals) else None)
    return before, label(goal, previous_subgoals, style, current_subgoal)


def completed(goal: str, previous_subgoals: Sequence[str], current_subgoal: str | None = None) -> Progress:
    """The progress after `previous_subgoals`; each counts as completed unless the one after it takes it back."""
    progress = _nothing_done(goal)
    for subgoal in previous_subgoals:
        progress = progress.begin(subgoal).finish(subgoal) if subgoal else progress.unseen()
    return progress.begin(current_subgoal) if current_subgoal else progress


def _nothing_done(goal: str) -> Progress:
    words = without_coordinates(goal)
    for of_goal in _OF_GOAL.values():
        if (progress := of_goal(words)) is not None:
            return progress
    raise MemrtError(
        "no memory labels for this goal",
        expected=f"a goal in the phrasing of {', '.join(_OF_GOAL)}",
        found=repr(goal),
        fix="add the task's phrasing to train/labels/, or use memrt train sft --generator endpoint",
    )
