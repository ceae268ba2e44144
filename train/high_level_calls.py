"""Which recorded calls the high level is trained on, and how often: those that decide whether a count stays right."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from memrt.train.high_level_data import EVERY, Calls

Draw = Callable[[random.Random], int]  # → index of a call
Record = Mapping[str, Any]

# Steps whose end is counted, by the first words of the simple subgoal. What follows is for the count to decide.
COUNTED = ("place", "put it into", "move to the top of the left", "remain static", "put down")
# Steps whose end is noticed half a call late: noticed before the hand is clear of the object or the place is reached,
# they would be counted though they may not have happened. A lift is never told late: until then the hand hardly rises.
TOLD_LATE = ("place", "put it into", "put the", "move to the top of the left", "move to the top of the right")
# A moment that does not come back: told as soon as it is there.
TOLD_AT_ONCE = "to stop the cube on the target"
# What of a call tells of the frame: it is seen whether or not a step's end has been noticed.
_SEEN = ("step", "scene", "previous_segment", "spatial_simple", "spatial_grounded", "keyframe_turn")
SHARES = (0.3, 0.15, 0.22, 0.08, 0.07, 0.18)
SHARES_WHILE_PRESSING = (0.15, 0.15, 0.15, 0.05, 0.35, 0.15)  # what is hidden later is to be seen until the last press


def call_draw(calls: Calls, indices: Sequence[int]) -> Draw:
    """Draws recorded calls: every task as often, in it those around transitions more often."""
    tasks = [
        [(share, group) for share, group in call_groups(calls.records, of_task) if group]
        for of_task in calls.by_task(indices).values()
    ]

    def draw(rng: random.Random) -> int:
        groups = rng.choice(tasks)
        [(_, group)] = rng.choices(groups, [share for share, _ in groups])
        return rng.choice(group)

    return draw


def call_groups(records: Sequence[Record], indices: Sequence[int]) -> list[tuple[float, list[int]]]:
    """A task's calls by what they ask of the policy, each group with the share of draws it gets.

    Calls at which a subgoal has just changed write the memory, and those just before must not: few frames that decide
    whether a count stays right. Most draws go to the calls after a counted step: there the count in the memory is held
    against the goal's, once more or on. Next come the calls around a change that are to leave the memory alone. A step
    that ended less than half a call ago is left out unless it is told late: noticing a lift one call late costs 0.8 s,
    noticing it early, with the cube not quite lifted, a count.
    """
    deciding: list[int] = []
    changed: list[int] = []
    about_to_change: list[int] = []
    just_changed: list[int] = []
    pressing: list[int] = []
    others: list[int] = []
    for index in indices:
        segment = records[index]["segment"]
        at_once = str(records[index]["subgoal_simple"]).endswith(TOLD_AT_ONCE)
        if _segment(records, index, -1) != segment and not at_once:
            if _told_late(records, index):
                just_changed.append(index)
        elif records[index]["previous_segment"] != segment:
            history = records[index]["history_simple"]
            (deciding if history and history[-1].startswith(COUNTED) else changed).append(index)
        elif any(_segment(records, index, ahead) != segment for ahead in (1, 2)):
            about_to_change.append(index)
        elif records[index]["subgoal_simple"].startswith("press"):
            pressing.append(index)
        else:
            others.append(index)
    shares = SHARES_WHILE_PRESSING if records[indices[0]]["task"].startswith("ButtonUnmask") else SHARES
    return list(zip(shares, (deciding, changed, about_to_change, just_changed, pressing, others), strict=True))


def noticed(records: Sequence[Record], index: int) -> Record:
    """The call as a policy is to answer it: a step of TOLD_LATE that ended within half a call is not noticed yet."""
    record = records[index]
    if not _told_late(records, index):
        return record
    return {**records[index - 1], **{name: record[name] for name in _SEEN if name in record}}


def _told_late(records: Sequence[Record], index: int) -> bool:
    """A step that is told late was completed within half a call."""
    if _segment(records, index, -1) >= records[index]["segment"]:
        return False
    return str(records[index - 1]["subgoal_simple"]).startswith(TOLD_LATE)


def _segment(records: Sequence[Record], index: int, offset: int) -> int:
    """The segment `offset` half calls away in the same episode, the call's own where the episode ends."""
    here, other = records[index], index + offset
    known = 0 <= other < len(records) and records[other]["episode"] == here["episode"]
    if known and records[other]["step"] - here["step"] == offset * EVERY:
        return int(records[other]["segment"])
    return int(here["segment"])
