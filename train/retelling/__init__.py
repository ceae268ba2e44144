"""Recorded calls told again, as they would have been recorded in an episode with other counts or names.

A frame shows neither how often something has been done nor how often it is to be done, nor what a container hides: all
that reaches the policy as words. A recorded episode ties those words to each other and to the scene; told again they
are untied, and only comparing them answers the question.
"""

from __future__ import annotations

import random
from typing import Any

from memrt.train.retelling import bin_fill, containers, pick_x_times, stop_cube, swing_x_times
from memrt.train.retelling.words import Record

# PickHighlight has none: which cubes were highlighted is neither counted nor hidden behind a name.
_TASKS = {
    "BinFill": bin_fill.draw_telling,
    "PickXtimes": pick_x_times.draw_telling,
    "SwingXtimes": swing_x_times.draw_telling,
    "StopCube": stop_cube.draw_telling,
    "ButtonUnmask": containers.draw_telling,
    "ButtonUnmaskSwap": containers.draw_telling,
}


def draw_telling(record: Record, rng: random.Random, *, remembers: bool, past_seen: bool = False) -> dict[str, Any]:
    """`record` as another episode would have recorded it; as it is where its task has no other tellings.

    Just after a counted step, before the arm has begun what follows, no image says what is due, and every policy sees
    the step as the counts have it. Later the arm's motion does say it. A policy that `remembers` is shown such frames
    with both, so that it trusts its memory; one without has nothing else to go by and keeps the step of the image.
    With `past_seen`, pictures of the past are shown: what they show stays, only what the goal asks for changes.
    """
    tell = _TASKS.get(record["task"])
    return dict(record) if tell is None else tell(record, rng, remembers=remembers, past_seen=past_seen)
