"""Text-only exercises about counting and remembering.

A released language model already knows what "twice" means, how to carry a sentence over and what is left to do of
"repeating this action three times". The reference one learns it here, from text alone, before any adapter teaches it
to keep a memory of what it sees. The base and every adapter, the memoryless one included, start from this same ground.
"""

from __future__ import annotations

import random

from memrt.train.high_level_data import ASSISTANT, ExampleSource
from memrt.train.high_level_text import Example
from memrt.train.labels import Style, label
from memrt.train.task_scripts import draw_script, task_of

SUMMARISE = "goal: {goal}\nhistory: {history}\nmemory?"
UPDATE = "goal: {goal}\nmemory: {memory}\ncompleted: {subgoal}\nmemory?"
NEXT = "goal: {goal}\nmemory: {memory}\nnext subgoal?"
_INITIAL = "(none yet)"


def memory_text_source() -> ExampleSource:
    """Summarise a history, add one completed subgoal to a memory, or say in words what comes next, in any task."""

    def draw(rng: random.Random) -> Example:
        style: Style = rng.choice(("simple", "grounded"))
        script = draw_script(rng)
        goal, subgoals = script.goal, script.grounded if style == "grounded" else script.simple
        done = rng.randrange(len(subgoals))
        before = label(goal, subgoals[:done], style)
        kind = rng.random()
        if kind < 0.2:
            history = "; ".join(f"{n}. {s}" for n, s in enumerate(subgoals[:done], start=1)) or _INITIAL
            return Example((), ASSISTANT, SUMMARISE.format(goal=goal, history=history), before)
        # Which cubes are highlighted has been seen, not done: no action memory tells what comes next there.
        if kind < 0.6 or task_of(goal) == "PickHighlight":
            user = UPDATE.format(goal=goal, memory=before, subgoal=subgoals[done])
            return Example((), ASSISTANT, user, label(goal, subgoals[: done + 1], style))
        return Example((), ASSISTANT, NEXT.format(goal=goal, memory=before), script.simple[done])

    return draw
