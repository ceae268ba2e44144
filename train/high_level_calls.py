"""Which recorded calls the high level is trained on, and how often.

A memory says which step is under way. Whether that step is over, only the frame can say: so for every step there are
as many calls at which it is over as at which it is not. What is much more frequent can be answered without looking.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from memrt.sim.objects import COLOURS
from memrt.train.high_level_data import EVERY, Calls
from memrt.train.task_language import CARDINALS, ORDINALS

Draw = Callable[[random.Random], int]  # → index of a call
Record = Mapping[str, Any]

# A moment that does not come back: told as soon as it is there. A visit is as plain at once as it is later.
TOLD_AT_ONCE, VISIT = "to stop the cube on the target", "remain static"
# Of the calls of one kind of step: it is over; it ends within a call; it goes on; nothing was before it. A kind where
# one does not exist (the last step is never over) comes the more seldom. A fifth of those at which it is over are shown
# with the memory already up to date (high_level_turns.py). What cannot be told apart is answered as the more frequent:
# late costs 0.8 s, early a count or the episode, so just before the end is as frequent as after it. An episode begins
# once, but does not get further otherwise: a policy of pictures that rarely saw one alone pressed the button at once.
SHARES = {"over": 0.5, "ends soon": 0.36, "goes on": 0.09, "begins": 0.05}
# Where other tasks have 1. A base that told 64 of 64 held-out steps of PickXtimes and of SwingXtimes rightly still
# pointed at a wrong container or highlighted cube in half of all calls, and overlooked half of the visits' ends.
DRAWN_OFTEN = {"BinFill": 1.5, "ButtonUnmask": 1.5, "ButtonUnmaskSwap": 1.5, "PickHighlight": 1.5, "StopCube": 2.0}
_WHICH = re.compile(rf"\b(?:{'|'.join((*ORDINALS, *CARDINALS, *COLOURS))})\b *")  # does not make another kind of step


def call_draw(calls: Calls, indices: Sequence[int]) -> Draw:
    """Draws recorded calls: in every task every kind of step as often, and half of them where that step is over."""
    by_task = calls.by_task(indices)
    tasks = [call_groups(calls.records, of_task) for of_task in by_task.values()]
    weights = [DRAWN_OFTEN.get(task, 1.0) for task in by_task]

    def draw(rng: random.Random) -> int:
        (groups,) = rng.choices(tasks, weights)
        [(_, group)] = rng.choices(groups, [share for share, _ in groups])
        return rng.choice(group)

    return draw


def call_groups(records: Sequence[Record], indices: Sequence[int]) -> list[tuple[float, list[int]]]:
    """A task's calls by the step that is under way and by what they ask about it, each group with its share of draws.

    A step that ended less than half a call ago is left out unless a moment decides: it looks much like one that is
    about to end, and noticing the end a call late costs 0.8 s, noticing it early a count.
    """
    kinds: defaultdict[str, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index in indices:
        asked = asked_about(records, index)
        if asked:
            kinds[_WHICH.sub("", _under_way(records, index))][asked].append(index)
    return [(SHARES[asked] / len(kinds), group) for kind in kinds.values() for asked, group in kind.items()]


def asked_about(records: Sequence[Record], index: int) -> str:
    """The key of SHARES that a call belongs to; "" for those that are left out."""
    record = records[index]
    segment = record["segment"]
    subgoal = str(record["subgoal_simple"])
    at_once = subgoal.endswith(TOLD_AT_ONCE) or subgoal.startswith(VISIT)
    if _segment(records, index, -1) != segment and not at_once:
        return ""
    if record["previous_segment"] < 0:
        return "begins"
    if record["previous_segment"] != segment:
        return "over"
    return "ends soon" if any(_segment(records, index, ahead) != segment for ahead in (1, 2)) else "goes on"


def _under_way(records: Sequence[Record], index: int) -> str:
    """The step that is under way as far as the policy knows, without pixels."""
    record = records[index]
    history, before = record["history_simple"], record["previous_segment"]
    return str(history[before] if 0 <= before < len(history) else record["subgoal_simple"])


def _segment(records: Sequence[Record], index: int, offset: int) -> int:
    """The segment `offset` half calls away in the same episode, the call's own where the episode ends."""
    here, other = records[index], index + offset
    known = 0 <= other < len(records) and records[other]["episode"] == here["episode"]
    if known and records[other]["step"] - here["step"] == offset * EVERY:
        return int(records[other]["segment"])
    return int(here["segment"])
