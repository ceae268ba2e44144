"""What a subgoal points at although it looks like others now: which container hides the cube, which cubes were lit.

Its place is not to be seen in the newest image but to be recalled: from the spatial memory's words, or from an image of
the moment when it was plain.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from memrt.train.labels.scene_text import Pixel, read_scene

_POINTED_AT = re.compile(r"(?P<thing>container|highlighted cube) <(?P<row>\d+), (?P<column>\d+)>")
COORDINATE = re.compile(r"<(\d+), (\d+)>")
_SPATIAL = "<spatial_mem>"
NEAR_PX = 10  # per axis: a shown memory is jittered, a highlight's middle lies five rows below its cube's


def pointed_at(reply: str) -> tuple[str, Pixel] | None:
    """What the subgoal of `reply` points at and where, if it looks like others; None for what is told apart by sight.

    "container" or "highlighted cube".
    """
    found = _POINTED_AT.search(reply.partition("\n")[0])
    return (found["thing"], (int(found["row"]), int(found["column"]))) if found else None


def told_in(prompt: str, pixel: Pixel) -> re.Match[str] | None:
    """The coordinate of the spatial memory in `prompt` that is nearest to `pixel`; None where none is near."""
    first = prompt.rfind(_SPATIAL)
    told = list(COORDINATE.finditer(prompt, first)) if first >= 0 else []
    nearest = min(told, key=lambda each: _distance(_pixel(each), pixel), default=None)
    return nearest if nearest and _distance(_pixel(nearest), pixel) <= NEAR_PX else None


def as_remembered(user: str, reply: str) -> str:
    """`reply` with what its subgoal points at exactly where the memory in `user` has it: nothing else tells."""
    pointed = pointed_at(reply)
    told = told_in(user, pointed[1]) if pointed else None
    if pointed is None or told is None:
        return reply
    return reply.replace(f"<{pointed[1][0]}, {pointed[1][1]}>", told[0], 1)


def shown_in(scenes: Sequence[str], thing: str, pixel: Pixel) -> tuple[int, Pixel] | None:
    """The last of `scenes` that shows the cube under the container or the highlight at `pixel`, and where exactly."""
    for number in range(len(scenes) - 1, -1, -1):
        scene = read_scene(scenes[number])
        plain = [place for _, place in scene.cubes()] if thing == "container" else scene.of("highlight")
        near = [place for place in plain if _distance(place, pixel) <= NEAR_PX]
        if near:
            return number, min(near, key=lambda place: _distance(place, pixel))
    return None


def _pixel(told: re.Match[str]) -> Pixel:
    return int(told[1]), int(told[2])


def _distance(one: Pixel, other: Pixel) -> int:
    return max(abs(one[0] - other[0]), abs(one[1] - other[1]))
