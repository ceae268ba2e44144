"""PickXtimes (RoboMME): pick the named cube and place it on the target N times, then press the button.

Rules, decided from physics once per control step:
- a pick counts when the named cube, between both finger pads, is lifted clear of the table;
- a place counts when that cube then rests on the target and no finger touches it;
- a cube that comes to rest elsewhere was dropped: the same pick is due again;
- lifting another cube, one pick too many, or pressing before N places fails the episode at once.
"""

from __future__ import annotations

import numpy as np

from memrt.sim.objects import COLOURS, TARGET_RADIUS, Button, Cube, SceneLayout, Target
from memrt.sim.scene import Scene
from memrt.sim.tasks.base import NUMBERS, ORDINALS, Step, Task
from memrt.sim.tasks.layout import scatter

COLOURS_ON_TABLE = {"easy": 1, "medium": 3, "hard": 3}  # RoboMME's difficulty table
REPETITIONS = {"easy": (1, 3), "medium": (1, 3), "hard": (4, 5)}


class PickXtimes(Task):
    """State of one episode: picks and places."""

    name = "PickXtimes"

    def generate(self, rng: np.random.Generator) -> SceneLayout:
        """The first of the colours drawn is the named one."""
        low, high = REPETITIONS[self.difficulty]
        colours = [str(c) for c in rng.permutation(list(COLOURS))[: COLOURS_ON_TABLE[self.difficulty]]]
        self.repetitions = int(rng.integers(low, high + 1))
        self.colour = colours[0]
        self.cube = f"{self.colour}_cube"
        self.picks = 0
        self.places = 0
        target, button, *places = scatter(rng, len(colours) + 2)
        cubes = (Cube(f"{colour}_cube", colour, at) for colour, at in zip(colours, places, strict=True))
        return SceneLayout((*cubes, Target("target", target), Button("button", button)))

    @property
    def goal(self) -> str:
        """The instruction in the phrasing of the report's figure 3."""
        cube = f"pick up the {self.colour} cube and place it on the target"
        if self.repetitions == 1:
            return f"{cube}, then press the button to stop"
        return f"{cube}, repeating this action {NUMBERS[self.repetitions - 1]} times, then press the button to stop"

    @property
    def step(self) -> Step:
        """What is due now."""
        if self.picks > self.places:
            return Step("place", self.cube, self.picks, "target")
        if self.places < self.repetitions:
            return Step("pick", self.cube, self.picks + 1)
        return Step("press", "button", self.picks)

    @property
    def segment(self) -> int:
        """Pick 1, place 1, pick 2, …, press."""
        return self.picks + self.places

    @property
    def segments(self) -> int:
        """A pick and a place for every time, and the press."""
        return 2 * self.repetitions + 1

    def words(self, step: Step) -> str:
        """A step in the phrasing of the report's figure 3."""
        if step.skill == "pick":
            return f"pick up the {self.colour} cube{{at}} for the {ORDINALS[min(step.ordinal, 5) - 1]} time"
        if step.skill == "place":
            return f"place the {self.colour} cube onto the target{{at}}"
        return "press the button{at} to stop"

    def watch(self, scene: Scene) -> None:
        """Count picks and places."""
        self._watch_lifts(scene)
        self._watch_table(scene)
        if self.just_pressed(scene):
            if self.places == self.repetitions:
                self.succeed(f"placed {self.repetitions} times, then pressed the button")
            self.fail(f"pressed the button after {self.places} of {self.repetitions} places")

    def _watch_lifts(self, scene: Scene) -> None:
        for cube in self.layout.of(Cube):
            if not self.lifted(scene, cube.name):
                continue
            if cube.name != self.cube:
                self.fail(f"picked up the {cube.words} instead of the {self.colour} one")
            elif self.picks == self.places:
                if self.places == self.repetitions:
                    self.fail(f"picked the cube up more than {self.repetitions} times")
                self.picks += 1

    def _watch_table(self, scene: Scene) -> None:
        if self.picks == self.places or not self.left_alone(scene, self.cube):
            return
        away = scene.position(self.cube) - scene.position("target")
        if np.hypot(*away[:2]) <= TARGET_RADIUS:
            self.places += 1
        else:
            self.picks -= 1
