"""The seven tasks in words: random episodes that go well, goal and subgoals worded as `sim/tasks` words them.

No simulator runs here. Text exercises draw their goals, subgoals and memories from these scripts, and `task_of` tells
from a goal which task it belongs to. `tests/train/test_task_scripts.py` holds them to the tasks themselves.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from memrt.runtime.errors import MemrtError
from memrt.runtime.memory.coordinates import without_coordinates
from memrt.train.task_language import CARDINALS, ORDINALS, goal_text

COLOURS = ("red", "green", "blue")  # of the simulator's cubes
_GOALS = {
    "BinFill": re.compile(r"put .* into the bin, then press"),
    "PickXtimes": re.compile(r"pick up the .* and place it on the target"),
    "SwingXtimes": re.compile(r"pick up the .* move it to the right-side target"),
    "StopCube": re.compile(r"press the button to stop the cube just as it reaches"),
    "ButtonUnmask": re.compile(r"first press the button, then pick up the container"),
    "ButtonUnmaskSwap": re.compile(r"first press both buttons on the table"),
    "PickHighlight": re.compile(r"first press the button, then pick up all highlighted"),
}


@dataclass(frozen=True, slots=True)
class Script:
    """One episode: its goal and its grounded subgoals, in order."""

    goal: str
    grounded: tuple[str, ...]

    @property
    def simple(self) -> tuple[str, ...]:
        """The same subgoals without coordinates."""
        return tuple(without_coordinates(subgoal) for subgoal in self.grounded)


def task_of(goal: str) -> str:
    """The task that `goal` is the goal of. Raises MemrtError for a goal that no task words like this."""
    for task, pattern in _GOALS.items():
        if pattern.match(goal):
            return task
    raise MemrtError(
        "unknown goal",
        expected=f"a goal of {', '.join(_GOALS)}",
        found=repr(goal),
        fix="word it as sim/tasks does, or add the task to train/task_scripts.py",
    )


def draw_script(rng: random.Random, task: str | None = None) -> Script:
    """A random episode of `task`, of any task by default."""
    return SCRIPTS[task or rng.choice(tuple(SCRIPTS))](rng)


def _at(rng: random.Random) -> str:
    return f" <{rng.randrange(50, 240)}, {rng.randrange(10, 246)}>"


def _bin_fill(rng: random.Random) -> Script:
    colours = rng.sample(COLOURS, rng.randint(1, 3))
    asked = {colour: rng.randint(1, 3) for colour in colours}
    parts = [f"{CARDINALS[count]} {colour} cube{'s' * (count > 1)}" for colour, count in asked.items()]
    cubes = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    into = f"put it into the bin{_at(rng)}"
    subgoals = [
        text
        for colour, count in asked.items()
        for ordinal in ORDINALS[:count]
        for text in (f"pick up the {ordinal} {colour} cube{_at(rng)}", into)
    ]
    return Script(
        f"put {cubes} into the bin, then press the button to stop", (*subgoals, f"press the button{_at(rng)}")
    )


def _pick_x_times(rng: random.Random) -> Script:
    colour, times, target = rng.choice(COLOURS), rng.randint(1, 5), _at(rng)
    subgoals = [
        text
        for ordinal in ORDINALS[:times]
        for text in (
            f"pick up the {colour} cube{_at(rng)} for the {ordinal} time",
            f"place the {colour} cube onto the target{target}",
        )
    ]
    return Script(goal_text(colour, times), (*subgoals, f"press the button{_at(rng)} to stop"))


def _swing_x_times(rng: random.Random) -> Script:
    colour, times = rng.choice(COLOURS), rng.randint(1, 3)
    repeat = f", repeating this right-to-left swing motion {CARDINALS[times]} times" if times > 1 else ""
    sides = [f"{side}-side target{_at(rng)}" for side in ("right", "left")]
    swings = [f"move to the top of the {side} for the {ordinal} time" for ordinal in ORDINALS[:times] for side in sides]
    goal = f"pick up the {colour} cube, move it to the right-side target and then to the left-side target{repeat}"
    end = (f"put the {colour} cube on the table", f"press the button{_at(rng)}")
    return Script(
        f"{goal}, then put down the cube and press the button to stop",
        (f"pick up the {colour} cube{_at(rng)}", *swings, *end),
    )


def _stop_cube(rng: random.Random) -> Script:
    visits, button = rng.randint(2, 5), _at(rng)
    waits = [f"remain static for the {ordinal} visit" for ordinal in ORDINALS[:visits]]
    return Script(
        f"press the button to stop the cube just as it reaches the target for the {ORDINALS[visits - 1]} time",
        (
            f"move to the top of the button{button} to prepare",
            *waits,
            f"press the button{button} to stop the cube on the target",
        ),
    )


def _unmask(rng: random.Random, buttons: str, presses: list[str]) -> Script:
    named = rng.sample(COLOURS, rng.randint(1, 2))
    picks = [f"pick up the container{_at(rng)} that hides the {colour} cube" for colour in named]
    goal = f"first press {buttons}, then pick up the container hiding the {named[0]} cube"
    if len(named) == 1:
        return Script(goal, (*presses, *picks))
    goal += f", finally pick up another container hiding the {named[1]} cube"
    return Script(goal, (*presses, picks[0], "put down the container", picks[1]))


def _button_unmask(rng: random.Random) -> Script:
    return _unmask(rng, "the button", [f"press the button{_at(rng)}"])


def _button_unmask_swap(rng: random.Random) -> Script:
    return _unmask(rng, "both buttons on the table", [f"press the {n} button{_at(rng)}" for n in ORDINALS[:2]])


def _pick_highlight(rng: random.Random) -> Script:
    count, button = rng.randint(1, 3), _at(rng)
    which = [f"{ordinal} highlighted" for ordinal in ORDINALS[:count]] if count > 1 else ["highlighted"]
    subgoals = [
        text
        for words in which
        for text in (
            f"pick up the {words} cube{_at(rng)}, which is {rng.choice(COLOURS)}",
            "place the cube onto the table",
        )
    ]
    return Script(
        "first press the button, then pick up all highlighted cubes, finally press the button again to stop",
        (f"press the button{button}", *subgoals, f"press the button{button} to stop"),
    )


SCRIPTS: dict[str, Callable[[random.Random], Script]] = {
    "BinFill": _bin_fill,
    "PickXtimes": _pick_x_times,
    "SwingXtimes": _swing_x_times,
    "StopCube": _stop_cube,
    "ButtonUnmask": _button_unmask,
    "ButtonUnmaskSwap": _button_unmask_swap,
    "PickHighlight": _pick_highlight,
}
