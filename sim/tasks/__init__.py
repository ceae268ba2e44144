"""The memory tasks by name."""

from __future__ import annotations

from memrt.runtime.errors import MemrtError
from memrt.sim.tasks.base import Difficulty, Task
from memrt.sim.tasks.bin_fill import BinFill
from memrt.sim.tasks.button_unmask import ButtonUnmask
from memrt.sim.tasks.button_unmask_swap import ButtonUnmaskSwap
from memrt.sim.tasks.pick_highlight import PickHighlight
from memrt.sim.tasks.pick_x_times import PickXtimes
from memrt.sim.tasks.stop_cube import StopCube
from memrt.sim.tasks.swing_x_times import SwingXtimes

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (BinFill, PickXtimes, SwingXtimes, StopCube, ButtonUnmask, ButtonUnmaskSwap, PickHighlight)
}


def make_task(name: str, seed: int, difficulty: Difficulty | None = None) -> Task:
    """Create a seeded task; an unknown name is refused with the known ones."""
    if name not in TASKS:
        raise MemrtError(
            "unknown task", expected=f"one of {', '.join(TASKS)}", found=repr(name), fix="choose --task from the list"
        )
    return TASKS[name](seed, difficulty)
