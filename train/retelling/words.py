"""Words and places that the retellings of several tasks have in common."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

from memrt.runtime.errors import MemrtError
from memrt.train import task_language
from memrt.train.labels import Style

STYLES: tuple[Style, ...] = ("simple", "grounded")
SPATIAL = ("spatial_simple", "spatial_grounded")  # of a record: the memories before and after the call
OPEN_SHARE = 0.5  # of the frames under way that are shown with counts by which the step under way is not the due one
_ORDINAL = re.compile(rf"\b({'|'.join(task_language.ORDINALS)})\b")

Record = Mapping[str, Any]


def before_the_next_step(record: Record) -> bool:
    """A step is over and the arm still follows it."""
    return bool(record["previous_segment"] != record["segment"])


def opened(rng: random.Random, remembers: bool) -> bool:
    """Whether a policy that `remembers` is shown a step under way with counts by which another one may be due."""
    return rng.random() < OPEN_SHARE and remembers


def again(subgoal: str, ordinal: int) -> str:
    """`subgoal` with its ordinal, if it has one, set to `ordinal`."""
    return _ORDINAL.sub(task_language.ORDINALS[ordinal - 1], subgoal)


def at(record: Record, style: Style, thing: str) -> str:
    """Where `thing` is in the recorded scene, ` <row, col>` for the grounded style, nothing for the simple one."""
    if style == "simple":
        return ""
    match = re.search(rf"(?:^|; ){thing}( <\d+, \d+>)", str(record["scene"]))
    if match is None:
        raise MemrtError(
            "scene description", expected=f"`{thing} <row, col>`", found=record["scene"], fix="record anew"
        )
    return match[1]


def pixel_of(record: Record, thing: str) -> tuple[int, int]:
    """(row, column) of `thing` in the recorded scene."""
    row, column = re.findall(r"\d+", at(record, "grounded", thing))
    return int(row), int(column)


def step_is(record: Record, verb: str) -> bool:
    """Whether the step under way begins with `verb`."""
    return str(record["subgoal_simple" if "subgoal_simple" in record else "subgoal_grounded"]).startswith(verb)


def told(
    record: Record, goal: str, segment: int, history: Mapping[Style, list[str]], due: Mapping[Style, str]
) -> dict[str, Any]:
    """`record` in an episode of `goal`, after the steps of `history`, with `due` under way, at `segment`."""
    shift = segment - int(record["segment"])
    changed: dict[str, Any] = {"goal": goal, "segment": segment}
    changed["previous_segment"] = int(record["previous_segment"]) + shift
    for style in history:
        changed |= {f"history_{style}": history[style], f"subgoal_{style}": due[style]}
    return {**record, **changed}
