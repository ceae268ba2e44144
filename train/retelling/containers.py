"""ButtonUnmask and ButtonUnmaskSwap told with other colours.

Once all cubes are covered, no picture shows which container hides which colour: the names may be exchanged in
everything that is said, the memories included. Where pictures of the past are shown, they say it: nothing is exchanged.
"""

from __future__ import annotations

import random
import re
from typing import Any

from memrt.train.retelling.words import Record

COLOURS = ("red", "green", "blue")
_SEEN = re.compile(r"(?<!holding the )\b(red|green|blue) cube")
_NAMED = re.compile(r"\b(red|green|blue)\b")
_TEXTS = ("goal", "subgoal_simple", "subgoal_grounded", "spatial_before", "spatial_after")


def draw_telling(record: Record, rng: random.Random, *, remembers: bool, past_seen: bool) -> dict[str, Any]:
    """`record` with the colours exchanged at random; as recorded where a cube is in sight."""
    names = dict(zip(COLOURS, rng.sample(COLOURS, len(COLOURS)), strict=True))
    if past_seen or _SEEN.search(str(record["scene"])):
        return dict(record)

    def renamed(text: str) -> str:
        return _NAMED.sub(lambda match: names[match[1]], text)

    changed: dict[str, Any] = {name: renamed(record[name]) for name in _TEXTS if name in record}
    for name in ("history_simple", "history_grounded"):
        changed[name] = [renamed(text) for text in record[name]]
    return {**record, **changed}
