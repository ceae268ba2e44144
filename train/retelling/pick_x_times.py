"""PickXtimes told with other counts.

From the second round on, a frame shows neither how many rounds are over nor how many the goal asks for: both reach the
policy as words, and only their comparison says whether to pick once more or to press. A recorded episode ties them to
each other and to the scene (four or five repetitions come with three cubes), and presses after one number of rounds
only. `retell` unties them. Its labels are what the expert would have been asked for, with pixels from the recorded
description of the scene.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

from memrt.runtime.errors import MemrtError
from memrt.train import task_language
from memrt.train.labels import Style
from memrt.train.retelling.words import STYLES, again, at, before_the_next_step, opened, step_is

MOST_REPETITIONS = 5  # of PickXtimes
_COLOUR = re.compile(r"pick up the (?P<colour>[a-z ]+?) cube and place it on the target")


def retell(record: Mapping[str, Any], places: int, repetitions: int) -> dict[str, Any]:
    """`record`, a line of `high_level/samples.jsonl`, with `places` rounds over and a goal of `repetitions`.

    The step is the one then due: a place stays a place, otherwise pick the cube while rounds are left, press the button
    after them. Raises MemrtError for counts that are not among the frame's `tellings`.
    """
    if (places, repetitions) not in tellings(record, due_step_open=True):
        raise MemrtError(
            "recorded call told with other counts",
            expected=f"one of (places, repetitions) {tellings(record, due_step_open=True)}",
            found=(places, repetitions),
            fix="choose among tellings(record, …)",
        )
    rounds, placing = divmod(int(record["segment"]), 2)
    told = dict(record)
    for style in STYLES:
        if f"subgoal_{style}" in record:
            told[f"history_{style}"] = _history(record, style, places)
            told[f"subgoal_{style}"] = (
                record[f"subgoal_{style}"] if placing else _due(record, style, places, repetitions)
            )
    shift = 2 * (places - rounds)
    told |= {"goal": task_language.goal_text(_colour(record), repetitions), "segment": int(record["segment"]) + shift}
    told["previous_segment"] = int(record["previous_segment"]) + shift
    return told


def tellings(record: Mapping[str, Any], *, due_step_open: bool) -> list[tuple[int, int]]:
    """All (places, repetitions) with which the frame of `record` may be told, its own among them.

    A first round shows that it is one, so it stays one. A cube in hand or lost stays one too. With `due_step_open`,
    a pick may become the press and the press a pick; without, the step stays what it is.
    """
    rounds, placing = divmod(int(record["segment"]), 2)
    neighbours = abs(int(record["previous_segment"]) - int(record["segment"])) <= 1
    counts = range(1, MOST_REPETITIONS + 1) if rounds and neighbours else (rounds,)
    pairs = [(places, most) for most in range(1, MOST_REPETITIONS + 1) for places in counts if places <= most]
    if due_step_open and not placing and _hand_free(record):
        return pairs
    if step_is(record, "press"):
        return [(places, most) for places, most in pairs if places == most]
    return [(places, most) for places, most in pairs if places < most]


def draw_telling(
    record: Mapping[str, Any], rng: random.Random, *, remembers: bool, past_seen: bool = False
) -> dict[str, Any]:
    """`record` with one of its tellings, each as likely as another; with `past_seen`, with the places it shows."""
    due_step_open = opened(rng, remembers) or before_the_next_step(record)
    options = tellings(record, due_step_open=due_step_open)
    if past_seen:
        options = [(places, most) for places, most in options if places == int(record["segment"]) // 2]
    return retell(record, *rng.choice(options))


def _hand_free(record: Mapping[str, Any]) -> bool:
    """Nothing was grasped or dropped: the hand is open over a placed cube, or on its way to the button."""
    scene = str(record["scene"])
    if int(record["previous_segment"]) > int(record["segment"]) or not record["segment"]:
        return False
    return "holding" not in scene if step_is(record, "press") else scene.endswith("open")


def _colour(record: Mapping[str, Any]) -> str:
    match = _COLOUR.match(str(record["goal"]))
    if match is None:
        raise MemrtError(
            "recorded call told with other counts",
            expected="a PickXtimes goal",
            found=repr(record["goal"]),
            fix="add the task's phrasing to train/retelling/pick_x_times.py",
        )
    return match["colour"]


def _due(record: Mapping[str, Any], style: Style, places: int, repetitions: int) -> str:
    """The subgoal due with nothing in hand. A step that stays keeps its pixel, fixed when it began."""
    recorded = str(record[f"subgoal_{style}"])
    if places == repetitions:
        return recorded if step_is(record, "press") else f"press the button{at(record, style, 'button')} to stop"
    return _pick(record, style, places + 1) if step_is(record, "press") else again(recorded, places + 1)


def _pick(record: Mapping[str, Any], style: Style, ordinal: int) -> str:
    cube = f"{_colour(record)} cube"
    return again(f"pick up the {cube}{at(record, style, cube)} for the first time", ordinal)


def _history(record: Mapping[str, Any], style: Style, places: int) -> list[str]:
    """The subgoals of `places` rounds, and the pick before a place. Only the first pick is not from the target."""
    recorded, current = list(record[f"history_{style}"]), str(record[f"subgoal_{style}"])
    rounds, placing = divmod(int(record["segment"]), 2)
    if not rounds:
        return recorded
    from_target = [text for text in [*recorded[2::2], current] if text.startswith("pick")]
    pick = from_target[-1] if from_target else _pick(record, style, 2)
    place = recorded[2 * rounds - 1]
    told = [recorded[0], place]
    for ordinal in range(2, places + 1):
        told += [again(pick, ordinal), place]
    return [*told, again(recorded[-1], places + 1)] if placing else told
