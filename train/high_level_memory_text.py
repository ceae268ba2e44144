"""Text-only exercises about counting and remembering.

A released language model already knows what "twice" means, how to carry a sentence over and what is left to do of
"repeating this action three times". The reference one learns it here, from text alone, before any adapter teaches it
to keep a memory of what it sees. The base and every adapter, the memoryless one included, start from this same ground.
"""

from __future__ import annotations

import random

from memrt.train import task_language
from memrt.train.high_level_data import ASSISTANT, ExampleSource
from memrt.train.high_level_text import Example
from memrt.train.labels import Style, label

SUMMARISE = "goal: {goal}\nhistory: {history}\nmemory?"
UPDATE = "goal: {goal}\nmemory: {memory}\ncompleted: {subgoal}\nmemory?"
NEXT = "goal: {goal}\nmemory: {memory}\nnext subgoal?"
_INITIAL = "(none yet)"


def subgoal_sequence(rng: random.Random, colour: str, times: int, style: Style) -> list[str]:
    """The subgoals of a PickXtimes episode that goes well, with random pixels in the grounded style."""

    def at() -> str:
        return f" <{rng.randrange(60, 230)}, {rng.randrange(10, 246)}>" if style == "grounded" else ""

    target = at()
    subgoals = []
    for ordinal in task_language.ORDINALS[:times]:
        subgoals += [
            f"pick up the {colour} cube{at()} for the {ordinal} time",
            f"place the {colour} cube onto the target{target}",
        ]
    return [*subgoals, f"press the button{at()} to stop"]


def memory_text_source() -> ExampleSource:
    """Summarise a history, add one completed subgoal to a memory, or say in words what comes next."""

    def draw(rng: random.Random) -> Example:
        style: Style = rng.choice(("simple", "grounded"))
        times = rng.randint(1, 5)
        goal = task_language.goal_text(rng.choice(task_language.COLOURS[:6]), times)
        colour = goal.split()[3]
        subgoals = subgoal_sequence(rng, colour, times, style)
        done = rng.randint(0, 2 * times)
        before = label(goal, subgoals[:done], style)
        kind = rng.random()
        if kind < 0.2:
            history = "; ".join(f"{n}. {s}" for n, s in enumerate(subgoals[:done], start=1)) or _INITIAL
            return Example(-1, ASSISTANT, SUMMARISE.format(goal=goal, history=history), before)
        if kind < 0.6:
            user = UPDATE.format(goal=goal, memory=before, subgoal=subgoals[done])
            return Example(-1, ASSISTANT, user, label(goal, subgoals[: done + 1], style))
        simple = subgoal_sequence(rng, colour, times, "simple")
        return Example(-1, ASSISTANT, NEXT.format(goal=goal, memory=before), simple[done])

    return draw
