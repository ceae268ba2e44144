"""StopCube told with other counts.

A frame shows on which side of the target the cube is, not how often it has passed: two visits more or fewer look the
same. While the cube is far from the target, any visit may be the next; near it, a press is due or not, as recorded, and
only such counts fit.
"""

from __future__ import annotations

import random
import re
from math import hypot
from typing import Any, NamedTuple

from memrt.train.retelling.words import STYLES, Record, again, at, pixel_of, step_is, told
from memrt.train.task_language import ORDINALS

VISITS = range(2, 6)  # at which one to stop, sim/tasks/stop_cube.py
NEAR_PX = 34  # a press is due when the cube is within 6 to 7 cm of the target's middle: up to 29 pixels
_CUBE = re.compile(r"([a-z]+ cube) <")


class Telling(NamedTuple):
    """So many visits are over, and the cube is to be stopped at this one."""

    over: int
    stop_at: int

    @property
    def last(self) -> bool:
        """Whether the next visit is the one."""
        return self.over == self.stop_at - 1


def retell(record: Record, telling: Telling) -> dict[str, Any]:
    """`record` after other visits, for another one to stop at."""
    goal = (
        f"press the button to stop the cube just as it reaches the target for the {ORDINALS[telling.stop_at - 1]} time"
    )
    if step_is(record, "move"):
        return {**record, "goal": goal}
    pressing = telling.last and step_is(record, "press")
    waits = [again("remain static for the first visit", number) for number in range(1, telling.over + 2)]
    waited = telling.over + pressing  # the last visit was waited for, too
    history, due = {}, {}
    for style in STYLES:
        button = at(record, style, "button")
        history[style] = [*record[f"history_{style}"][:1], *waits[:waited]]
        due[style] = f"press the button{button} to stop the cube on the target" if pressing else waits[-1]
    return told(record, goal, waited + 1, history, due)


def tellings(record: Record, *, past_seen: bool) -> list[Telling]:
    """All that the frame of `record` may be told with. `past_seen`: pictures show the visits.

    There may be none: where the last visit is waited for and the press nearly due, the frame fits its own alone.
    """
    if step_is(record, "move"):
        return [Telling(0, visit) for visit in VISITS]
    over = int(record["segment"]) - 1 - step_is(record, "press")
    counts = (over,) if past_seen or over == 0 else range(2 - over % 2, VISITS.stop, 2)
    pairs = [Telling(o, visit) for visit in VISITS for o in counts if o < visit]
    if _far(record):
        return pairs
    return [pair for pair in pairs if pair.last == step_is(record, "press")]


def draw_telling(record: Record, rng: random.Random, *, remembers: bool, past_seen: bool) -> dict[str, Any]:
    """`record` with one of its tellings; as recorded where the hand left the button or a visit was missed."""
    segment, before = int(record["segment"]), int(record["previous_segment"])
    if abs(segment - before) > 1 or (step_is(record, "move") and segment):
        return dict(record)
    fitting = tellings(record, past_seen=past_seen)
    return retell(record, rng.choice(fitting)) if fitting else dict(record)


def _far(record: Record) -> bool:
    """Whether the cube is so far from the target that nobody would press."""
    match = _CUBE.search(str(record["scene"]))
    cube, target = pixel_of(record, match[1] if match else "cube"), pixel_of(record, "target")
    return hypot(cube[0] - target[0], cube[1] - target[1]) > NEAR_PX
