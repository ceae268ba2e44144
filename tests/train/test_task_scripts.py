"""Episodes in words are worded as the tasks word them, and the memory labels understand every one."""

import random
import re

import pytest

from memrt.runtime.errors import MemrtError
from memrt.sim.tasks import TASKS, make_task
from memrt.train.labels import label
from memrt.train.task_scripts import SCRIPTS, draw_script, task_of

_VARIED = re.compile(r"\b(one|two|three|four|five|first|second|third|fourth|fifth|red|green|blue|cubes?)\b|<\d+, \d+>")


def shape(text: str) -> str:
    """`text` without its counts, colours and places; a goal's list of cubes is one thing."""
    return re.sub(r"(# #( #)?(, | and )?)+(?= into)", "CUBES", _VARIED.sub("#", text))


@pytest.mark.parametrize("name", TASKS)
def test_scripts_are_worded_as_the_task_words_itself(name: str) -> None:
    rng = random.Random(0)
    scripts = [draw_script(rng, name) for _ in range(60)]
    tasks = [make_task(name, seed) for seed in range(60)]
    assert {shape(task.goal) for task in tasks} == {shape(script.goal) for script in scripts}
    first = {shape(task.words(task.step).format(at=" <1, 2>")) for task in tasks}
    assert first == {shape(script.grounded[0]) for script in scripts}
    assert {task_of(text.goal) for text in (*tasks, *scripts)} == {name}


def test_every_prefix_of_every_script_has_a_memory() -> None:
    rng = random.Random(1)
    memories = set()
    for name in SCRIPTS:
        for _ in range(10):
            script = draw_script(rng, name)
            for done in range(len(script.grounded)):
                memories.add(label(script.goal, script.grounded[:done], "grounded"))
                memories.add(label(script.goal, script.simple[:done], "simple"))
    assert len(memories) > 100


def test_an_unknown_goal_is_refused() -> None:
    with pytest.raises(MemrtError, match="unknown goal"):
        task_of("make tea")
