"""SwingXtimes (RoboMME): move the cube over the right-side, then the left-side target, N times, put it down, press.

Sides are the robot's own: the right-side target lies at negative y, which is left in the front image.

Rules, decided from physics once per control step:
- a visit counts when the held cube is over a target's middle; staying there or coming back to it counts once;
- the first visit is to the right-side target; going to the left-side one first fails the episode at once;
- a cube let go before the last visit was dropped: it has to be picked up again, the visits so far count;
- lifting another cube, beginning one swing too many, and pressing before the swings are done and the cube is put down
  fail the episode at once.
"""

from __future__ import annotations

import numpy as np

from memrt.sim.objects import COLOURS, Button, Cube, Placement, SceneLayout, Target
from memrt.sim.scene import Scene
from memrt.sim.tasks.base import NUMBERS, ORDINALS, Step, Task
from memrt.sim.tasks.layout import scatter

COLOURS_ON_TABLE = {"easy": 1, "medium": 3, "hard": 3}  # RoboMME's difficulty table
REPETITIONS = {"easy": (1, 3), "medium": (1, 2), "hard": (3, 3)}

TARGET_X = (0.42, 0.60)  # [m]
TARGET_Y = (0.18, 0.24)  # of the left-side target; the right-side one mirrored
MIDDLE_Y = (-0.10, 0.10)  # where cubes and button stand: no way to a target leads over the other one
VISIT_RADIUS = 0.04  # [m]

SIDES = ("right_target", "left_target")


class SwingXtimes(Task):
    """State of one episode: the visits to the targets so far, and whether the cube is in the hand."""

    name = "SwingXtimes"

    def generate(self, rng: np.random.Generator) -> SceneLayout:
        """The first of the colours drawn is the named one."""
        low, high = REPETITIONS[self.difficulty]
        colours = [str(c) for c in rng.permutation(list(COLOURS))[: COLOURS_ON_TABLE[self.difficulty]]]
        self.repetitions = int(rng.integers(low, high + 1))
        self.colour = colours[0]
        self.cube = f"{self.colour}_cube"
        self.visits = 0
        self.holding = False
        right, left = (Placement(float(rng.uniform(*TARGET_X)), s * float(rng.uniform(*TARGET_Y))) for s in (-1, 1))
        button, *places = scatter(rng, len(colours) + 1, y_range=MIDDLE_Y)
        cubes = (Cube(f"{colour}_cube", colour, at) for colour, at in zip(colours, places, strict=True))
        return SceneLayout(
            (*cubes, Target("right_target", right), Target("left_target", left), Button("button", button))
        )

    @property
    def goal(self) -> str:
        """The instruction in the benchmark's phrasing."""
        swing = f"pick up the {self.colour} cube, move it to the right-side target and then to the left-side target"
        if self.repetitions > 1:
            swing += f", repeating this right-to-left swing motion {NUMBERS[self.repetitions - 1]} times"
        return f"{swing}, then put down the cube and press the button to stop"

    @property
    def swung(self) -> bool:
        """Whether all visits are done."""
        return self.visits == 2 * self.repetitions

    @property
    def step(self) -> Step:
        """What is due now."""
        if not self.holding:
            return Step("press", "button") if self.swung else Step("pick", self.cube)
        if self.swung:
            return Step("put", self.cube)
        return Step("carry", self.cube, self.visits // 2 + 1, SIDES[self.visits % 2])

    @property
    def segment(self) -> int:
        """Pick, right 1, left 1, …, put, press. Picking a dropped cube up again is part of the visit it was on."""
        if not self.holding and not self.swung:
            return self.visits + bool(self.visits)
        return self.visits + 1 + (self.swung and not self.holding)

    @property
    def segments(self) -> int:
        """The pick, two visits for every time, put and press."""
        return 2 * self.repetitions + 3

    def words(self, step: Step) -> str:
        """A step in the benchmark's phrasing."""
        if step.skill == "pick":
            return f"pick up the {self.colour} cube{{at}}"
        if step.skill == "carry":
            side = self.layout[step.to].words
            return f"move to the top of the {side}{{at}} for the {ORDINALS[step.ordinal - 1]} time"
        return f"put the {self.colour} cube on the table" if step.skill == "put" else "press the button{at}"

    def watch(self, scene: Scene) -> None:
        """Follow the cube from target to target."""
        for cube in self.layout.of(Cube):
            if self.lifted(scene, cube.name):
                if cube.name != self.cube:
                    self.fail(f"picked up the {cube.words} instead of the {self.colour} one")
                self.holding = True
        if self.holding and self.left_alone(scene, self.cube):
            self.holding = False
        if self.holding and self.lifted(scene, self.cube):
            self._watch_visits(scene)
        if self.just_pressed(scene):
            if self.swung and not self.holding:
                self.succeed(f"swung the cube {self.repetitions} times, then pressed the button")
            self.fail(f"pressed the button after {self.visits} of {2 * self.repetitions} visits to the targets")

    def _watch_visits(self, scene: Scene) -> None:
        over = [np.hypot(*(scene.position(self.cube) - scene.position(t))[:2]) < VISIT_RADIUS for t in SIDES]
        if self.visits == 0 and over[1]:
            self.fail("went to the left-side target first")
        elif over[self.visits % 2]:
            if self.swung:
                self.fail(f"swung the cube more than {self.repetitions} times")
            self.visits += 1
