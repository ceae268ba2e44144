"""ButtonUnmask and ButtonUnmaskSwap told with other colours.

Once all cubes are covered, no picture shows which container hides which colour: the names may be exchanged in
everything that is said, the memories included. Where pictures of the past are shown, they say it: nothing is exchanged.
"""

from __future__ import annotations

import random
import re
from typing import Any

from memrt.train.retelling.words import SPATIAL, Record

COLOURS = ("red", "green", "blue")
_SEEN = re.compile(r"(?<!holding the )\b(red|green|blue) cube")
_NAMED = re.compile(r"\b(red|green|blue)\b", re.IGNORECASE)
_TEXTS = ("goal", "subgoal_simple", "subgoal_grounded")
_LISTS = ("history_simple", "history_grounded", *SPATIAL)


def draw_telling(record: Record, rng: random.Random, *, remembers: bool, past_seen: bool) -> dict[str, Any]:
    """`record` with the colours exchanged at random; as recorded where a cube is in sight."""
    names = dict(zip(COLOURS, rng.sample(COLOURS, len(COLOURS)), strict=True))
    if past_seen or _SEEN.search(str(record["scene"])):
        return dict(record)

    def name(match: re.Match[str]) -> str:
        found = names[match[1].lower()]
        return found.capitalize() if match[1][0].isupper() else found

    texts: dict[str, Any] = {key: _NAMED.sub(name, record[key]) for key in _TEXTS}
    lists = {key: [_NAMED.sub(name, text) for text in record[key]] for key in _LISTS if key in record}
    return {**record, **texts, **lists}
