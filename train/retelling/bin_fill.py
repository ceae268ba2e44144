"""BinFill told with other counts and other goals.

Neither the bin nor the table shows how many cubes are in, of which colour, or how many are asked for: as long as the
cube that is due stays the same, everything else is free. With the hand empty after a put, all may be in: press. A press
stays one: which cube would be the nearest to the bin is for the recorder to say.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from memrt.train.labels import Style
from memrt.train.labels.wording import NUMBERS, counted, listed
from memrt.train.retelling.words import SPATIAL, STYLES, Record, again, at, before_the_next_step, opened, step_is, told
from memrt.train.task_language import CARDINALS

MOST_CUBES = 5  # asked for in all
_COLOUR = re.compile(r"pick up the [a-z]+ (?P<colour>[a-z]+) cube")
_BIN = re.compile(r"(?:In t|T)he bin(?P<at> <\d+, \d+>)?(?::| is empty)")
_HOW_MANY = re.compile(rf"\b({'|'.join(NUMBERS)}) [a-z]+ cubes?\b")
_SEEN = re.compile(r"(?:^|; )([a-z]+) cube <")


class Share(NamedTuple):
    """Of one colour, so many are in the bin, of so many asked for."""

    colour: str
    done: int
    asked: int


def bin_goal(shares: list[Share]) -> str:
    """The goal in the benchmark's phrasing."""
    parts = [f"{CARDINALS[share.asked]} {share.colour} cube{'s' * (share.asked > 1)}" for share in shares]
    cubes = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"put {cubes} into the bin, then press the button to stop"


def retell(record: Record, shares: list[Share]) -> dict[str, Any]:
    """`record` in an episode whose goal are `shares`, in their order."""
    holding = step_is(record, "put")
    due = next((share for share in shares if share.done < share.asked), None)
    history: dict[Style, list[str]] = {}
    now: dict[Style, str] = {}
    for style in STYLES:
        recorded, put = record[f"subgoal_{style}"], f"put it into the bin{at(record, style, 'bin')}"
        history[style] = [
            text
            for share in shares
            for ordinal in range(1, share.done + 1)
            for text in (_pick(record, style, share.colour, ordinal), put)
        ]
        if due is None:
            now[style] = f"press the button{at(record, style, 'button')}"
        elif holding:
            history[style].append(again(record[f"history_{style}"][-1], due.done + 1))
            now[style] = recorded
        else:
            now[style] = again(recorded, due.done + 1)
    retold = told(record, bin_goal(shares), 2 * sum(share.done for share in shares) + holding, history, now)
    recorded_done = int(record["segment"]) // 2
    for key in SPATIAL:
        if key in record:
            retold[key] = [_contents(text, recorded_done, shares, due) for text in record[key]]
    return retold


def _contents(spatial: str, recorded_done: int, shares: list[Share], due: Share | None) -> str:
    """A spatial memory of the bin, with the cubes of `shares` in it, and one more or fewer where it was seen so.

    What is seen may be ahead of the steps that count as completed, or behind them: the memory before a put.
    """
    match = _BIN.match(spatial)
    if match is None:
        return spatial
    inside = {share.colour: share.done for share in shares}
    ahead = sum(NUMBERS.index(number) + 1 for number in _HOW_MANY.findall(spatial)) - recorded_done
    filled = [colour for colour, count in inside.items() if count]
    if ahead > 0 and due is not None:
        inside[due.colour] += 1
    elif ahead < 0 and filled:
        inside[filled[-1]] -= 1
    cubes = [counted(count, f"{colour} cube") for colour, count in inside.items() if count]
    where = f"the bin{match['at'] or ''}"
    return f"In {where}: {listed(cubes)}." if cubes else f"{where.capitalize()} is empty."


def draw_telling(record: Record, rng: random.Random, *, remembers: bool, past_seen: bool) -> dict[str, Any]:
    """`record` in another episode; as recorded where a step was missed or a cube was dropped."""
    due_step_open = opened(rng, remembers) or before_the_next_step(record)
    segment, before = int(record["segment"]), int(record["previous_segment"])
    if not 0 <= segment - before <= 1:
        return dict(record)
    draw = random.Random(rng.random())
    done = _recorded(record)
    due = None if step_is(record, "press") else _due(record)
    if not past_seen and segment > 1:
        done = _drawn(draw, [*dict.fromkeys(_SEEN.findall(str(record["scene"])))], due)
    shares = [Share(colour, count, count) for colour, count in done.items()]
    room = MOST_CUBES - sum(done.values())
    free_hand = str(record["scene"]).endswith("open") and segment > 1
    if due is None or (done and due_step_open and free_hand and draw.random() < 1 / (room + 1)):
        return retell(record, shares) if shares else dict(record)
    others = [share for share in shares if share.colour != due]
    asked = draw.randint(1, max(1, room))
    further = [colour for colour in dict.fromkeys(_SEEN.findall(str(record["scene"]))) if colour not in {*done, due}]
    extra = [Share(draw.choice(further), 0, 1)] if further and asked > 1 and draw.random() < 0.5 else []
    own = Share(due, done.get(due, 0), done.get(due, 0) + asked - len(extra))
    return retell(record, [*others, own, *extra])


def _drawn(rng: random.Random, colours: list[str], due: str | None) -> dict[str, int]:
    """Cubes in the bin by colour, one at least, and room for one more if one is due; the due colour comes last."""
    total = rng.randint(1, MOST_CUBES - (due is not None))
    drawn = [rng.choice(colours) for _ in range(total)]
    order = sorted(dict.fromkeys(drawn), key=lambda colour: colour == due)
    return {colour: drawn.count(colour) for colour in order}


def _recorded(record: Record) -> dict[str, int]:
    done: dict[str, int] = {}
    for text in record["history_simple"][: 2 * (int(record["segment"]) // 2) : 2]:
        colour = _picked(text)
        done[colour] = done.get(colour, 0) + 1
    return done


def _due(record: Record) -> str:
    return _picked(record["history_simple"][-1] if step_is(record, "put") else record["subgoal_simple"])


def _picked(subgoal: str) -> str:
    match = _COLOUR.match(subgoal)
    if match is None:
        raise ValueError(f"not a pick of BinFill: {subgoal!r}")
    return match["colour"]


def _pick(record: Mapping[str, Any], style: Style, colour: str, ordinal: int) -> str:
    """A pick of the past: where the cube stood can no longer be seen, so any cube's place of that colour will do."""
    recorded = [text for text in record[f"history_{style}"] if f" {colour} cube" in text]
    pick = recorded[0] if recorded else f"pick up the first {colour} cube{at(record, style, f'{colour} cube')}"
    return again(pick, ordinal)
