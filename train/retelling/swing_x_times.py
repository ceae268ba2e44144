"""SwingXtimes told with other counts.

A cube in the air shows neither how often it has been over a target nor how often it is to be. It does show which target
it comes from: a visit stays one to its side. The first one, from the cube's place on the table, stays the first.
"""

from __future__ import annotations

import random
import re
from typing import Any, NamedTuple

from memrt.runtime.errors import MemrtError
from memrt.train.labels import Style
from memrt.train.retelling.words import STYLES, Record, again, at, before_the_next_step, opened, step_is, told
from memrt.train.task_language import CARDINALS, ORDINALS

MOST_ROUNDS = 3
SIDES = ("right-side target", "left-side target")
_GOAL = re.compile(r"pick up the (?P<colour>[a-z ]+?) cube, move it to the right-side target")


class Telling(NamedTuple):
    """So many visits are over, of so many rounds; `step` is what is due then."""

    visits: int
    rounds: int

    @property
    def step(self) -> str:
        """carry while visits are left, else put."""
        return "put" if self.visits == 2 * self.rounds else "carry"


def swing_goal(colour: str, rounds: int) -> str:
    """The goal in the benchmark's phrasing."""
    swing = f"pick up the {colour} cube, move it to the right-side target and then to the left-side target"
    if rounds > 1:
        swing += f", repeating this right-to-left swing motion {CARDINALS[rounds]} times"
    return f"{swing}, then put down the cube and press the button to stop"


def retell(record: Record, telling: Telling) -> dict[str, Any]:
    """`record` after other visits, of another number of rounds; what is in hand stays in hand."""
    visits, rounds = telling
    pressing, picking = step_is(record, "press"), step_is(record, "pick")
    history, due = {}, {}
    for style in STYLES:
        carries = [_carry(record, style, number) for number in range(visits + 1)]
        history[style] = [] if picking else [*record[f"history_{style}"][:1], *carries[:visits]]
        put = f"put the {_colour(record)} cube on the table"
        recorded = record[f"subgoal_{style}"]
        due[style] = recorded if picking else put if telling.step == "put" else carries[visits]
        if pressing:
            history[style], due[style] = [*history[style], put], recorded
    segment = 0 if picking else visits + 1 + pressing
    return told(record, swing_goal(_colour(record), rounds), segment, history, due)


def tellings(record: Record, *, due_step_open: bool, past_seen: bool) -> list[Telling]:
    """All that the frame of `record` may be told with. `past_seen`: pictures show the visits, so they stay."""
    segment = int(record["segment"])
    visits = max(0, segment - 1 - step_is(record, "press"))
    over = range(2 - visits % 2, 2 * MOST_ROUNDS + 1, 2) if visits and not past_seen else (visits,)
    pairs = [Telling(v, n) for n in range(1, MOST_ROUNDS + 1) for v in over if v <= 2 * n]
    if step_is(record, "press"):
        return [pair for pair in pairs if pair.step == "put"]
    if step_is(record, "pick"):
        return [pair for pair in pairs if pair.visits == 0]
    if due_step_open and "holding" in str(record["scene"]):
        return pairs
    return [pair for pair in pairs if pair.step == ("put" if step_is(record, "put") else "carry")]


def draw_telling(record: Record, rng: random.Random, *, remembers: bool, past_seen: bool) -> dict[str, Any]:
    """`record` with one of its tellings; as recorded where a step was missed or a lost cube is picked up again."""
    due_step_open = opened(rng, remembers) or before_the_next_step(record)
    segment, before = int(record["segment"]), int(record["previous_segment"])
    if abs(segment - before) > 1 or (step_is(record, "pick") and segment):
        return dict(record)
    options = tellings(record, due_step_open=due_step_open, past_seen=past_seen)
    return retell(record, rng.choice(options)) if options else dict(record)


def _carry(record: Record, style: Style, number: int) -> str:
    side = SIDES[number % 2]
    where = at(record, style, side)
    return again(f"move to the top of the {side}{where} for the first time", min(number // 2 + 1, len(ORDINALS)))


def _colour(record: Record) -> str:
    match = _GOAL.match(str(record["goal"]))
    if match is None:
        raise MemrtError(
            "recorded call told with other counts",
            expected="a SwingXtimes goal",
            found=repr(record["goal"]),
            fix="add the task's phrasing to train/retelling/swing_x_times.py",
        )
    return match["colour"]
