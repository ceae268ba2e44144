"""ButtonUnmaskSwap (RoboMME): as ButtonUnmask with two buttons, and the containers then swap places in view.

The swaps begin soon after the containers stand, while the arm is busy with the buttons. Which button is pressed first
is free; pressing the second one stays due until the last swap is over. Everything else is as in ButtonUnmask.
"""

from __future__ import annotations

import numpy as np

from memrt.sim.objects import Placement, SceneLayout
from memrt.sim.scene import Scene
from memrt.sim.tasks.base import ORDINALS, Step
from memrt.sim.tasks.button_unmask import ButtonUnmask
from memrt.sim.tasks.containers import CONTAINERS_X, CONTAINERS_Y, Swap, Swapping, draw_swaps
from memrt.sim.tasks.layout import scatter

CONTAINERS = {"easy": 3, "medium": 4, "hard": 4}  # RoboMME's difficulty table
SWAPS = {"easy": (1, 2), "medium": (1, 2), "hard": (2, 3)}
NAMED = {"easy": (1, 2), "medium": (1, 1), "hard": (2, 2)}

APART = 0.13  # room for another container's corner to pass [m]
PAUSE_STEPS = 8  # control steps between covering and the first swap


class ButtonUnmaskSwap(ButtonUnmask):
    """State of one episode: that of ButtonUnmask, and the swaps."""

    name = "ButtonUnmaskSwap"

    def generate(self, rng: np.random.Generator) -> SceneLayout:
        """Draw places until as many swaps as wanted are possible between them."""
        swaps = int(rng.integers(SWAPS[self.difficulty][0], SWAPS[self.difficulty][1] + 1))
        named = int(rng.integers(NAMED[self.difficulty][0], NAMED[self.difficulty][1] + 1))
        while True:
            places = self.places(rng)
            drawn = draw_swaps(rng, places, swaps)
            if drawn is not None:
                break
        layout = self.arrange(rng, places, named, ("right_button", "left_button"))
        self.swaps = [Swap(f"container_{i + 1}", f"container_{j + 1}", side) for i, j, side in drawn]
        inside = {container: f"{colour}_cube" for colour, container in self.hiding.items()}
        self._swapping = Swapping(self.swaps, inside)
        self._pause = PAUSE_STEPS
        return layout

    def places(self, rng: np.random.Generator) -> list[Placement]:
        """Where the containers stand at first, apart enough to pass each other."""
        return scatter(
            rng,
            CONTAINERS[self.difficulty],
            lambda i, j, dx, dy: bool(np.hypot(dx, dy) >= APART),
            CONTAINERS_X,
            CONTAINERS_Y,
        )

    @property
    def buttons_in_words(self) -> str:
        """What the goal says is to be pressed."""
        return "both buttons on the table"

    def words(self, step: Step) -> str:
        """A step in the benchmark's phrasing."""
        if step.skill == "press":
            return f"press the {ORDINALS[step.ordinal - 1]} button{{at}}"
        return super().words(step)

    @property
    def still(self) -> bool:
        """Whether the containers will not be moved any more."""
        return self._lowering.done and self._swapping.done

    def move(self, scene: Scene) -> None:
        """First down, then, after a pause, to each other's places."""
        if not self._lowering.done:
            super().move(scene)
        elif self._pause > 0:
            self._pause -= 1
        else:
            self._swapping.advance(scene)
