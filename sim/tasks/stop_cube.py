"""StopCube (RoboMME): a cube travels to and fro across a target; press the button to stop it there at its k-th visit.

Rules, decided once per control step:
- the cube stops where it is when the button is pressed; within the target's radius of its middle, it is on the target;
- stopped on the target at its k-th visit: success;
- stopped beside it or at another visit, and letting the k-th visit pass, fails the episode at once.

The table has no difficulties for this task: visits and period are drawn alike in all.
"""

from __future__ import annotations

import numpy as np

from memrt.sim.objects import COLOURS, CUBE_HALF, TARGET_RADIUS, Button, Cube, Placement, SceneLayout, Target
from memrt.sim.scene import Scene
from memrt.sim.tasks.base import ORDINALS, Step, Task

VISITS = (2, 5)
PERIODS = (60, 80, 120)  # control steps from one visit to the next
REACH = 0.14  # how far the cube travels to either side of the target [m]
TURNED = 0.35  # the way is turned by up to this against the y axis [rad]
START_AFTER = 30  # control steps the cube waits at its end: the hand is over the button before the first visit is over
TARGET_X, TARGET_Y = (0.55, 0.61), (-0.08, 0.08)  # [m]
BUTTON_X, BUTTON_Y = (0.38, 0.43), (-0.20, 0.20)  # behind the way, as the camera sees it: the hand never hides the cube
OVER_BUTTON = 0.03  # sideways [m]
READY_HEIGHT = 0.13  # fingertips below this are ready to press [m]
# From its hover to the press the hand takes 6 to 10 control steps, in which the cube covers 14 to 47 mm. A press is due
# as soon as the quickest would still meet the cube on the target: the slowest does for 16 control steps more whatever
# the period, so one of the calls of a high level falls between.
QUICKEST_PRESS = 6  # control steps
INSIDE = 0.005  # so far inside the target's edge the quickest press meets the cube [m]
LEFT = TARGET_RADIUS + CUBE_HALF  # a visit is over when the cube is clear of the target [m]


class StopCube(Task):
    """State of one episode: the time alone, and whether the hand is ready."""

    name = "StopCube"
    timed = True

    def generate(self, rng: np.random.Generator) -> SceneLayout:
        """The cube's way, its period and the visit to stop at."""
        self.repetitions = int(rng.integers(VISITS[0], VISITS[1] + 1))
        self.period = int(rng.choice(PERIODS))
        colour = str(rng.choice(list(COLOURS)))
        self.cube = f"{colour}_cube"
        self.ready = False
        turned, side = float(rng.uniform(-TURNED, TURNED)), float(rng.choice([-1.0, 1.0]))
        self._middle = np.array([rng.uniform(*TARGET_X), rng.uniform(*TARGET_Y)])
        self._way = side * REACH * np.array([np.sin(turned), np.cos(turned)])
        self._yaw = -turned
        button = Placement(float(rng.uniform(*BUTTON_X)), float(rng.uniform(*BUTTON_Y)))
        x, y = self._middle + self._way
        return SceneLayout(
            (
                Cube(self.cube, colour, Placement(float(x), float(y), self._yaw), on_rails=True),
                Target("target", Placement(float(self._middle[0]), float(self._middle[1]))),
                Button("button", button),
            )
        )

    @property
    def goal(self) -> str:
        """The instruction in the benchmark's phrasing."""
        ordinal = ORDINALS[self.repetitions - 1]
        return f"press the button to stop the cube just as it reaches the target for the {ordinal} time"

    @property
    def travelled(self) -> float:
        """How many passes from end to end the cube has made; at x.5 it is on the target's middle."""
        return max(0, self.control_steps - START_AFTER) / self.period

    @property
    def visits(self) -> int:
        """How many visits are over."""
        return int(self.travelled + 0.5 - LEFT / (2 * REACH))

    @property
    def pressing(self) -> bool:
        """Whether the cube has come so near, on its k-th approach, that a press is due."""
        passes = self.repetitions - 0.5 - (TARGET_RADIUS - INSIDE) / (2 * REACH) - QUICKEST_PRESS / self.period
        return self.control_steps >= START_AFTER + passes * self.period

    @property
    def step(self) -> Step:
        """What is due now."""
        if self.pressing:
            return Step("press", "button", self.repetitions)
        return Step("wait" if self.ready else "hover", "button", self.visits + 1)

    @property
    def segment(self) -> int:
        """Hover, wait for visit 1, …, k, press."""
        return self.visits + (self.ready or self.visits > 0) + self.pressing

    @property
    def segments(self) -> int:
        """Hover, the visits waited for, the press."""
        return self.repetitions + 2

    def words(self, step: Step) -> str:
        """A step in the benchmark's phrasing; waiting says for which visit, because that is what has to be known."""
        if step.skill == "hover":
            return "move to the top of the button{at} to prepare"
        if step.skill == "wait":
            return f"remain static for the {ORDINALS[step.ordinal - 1]} visit"
        return "press the button{at} to stop the cube on the target"

    def watch(self, scene: Scene) -> None:
        """Move the cube, unless the button stops it."""
        away = np.abs(scene.tcp_position() - scene.position("button"))
        self.ready = bool(np.hypot(*away[:2]) < OVER_BUTTON and scene.tcp_position()[2] < READY_HEIGHT)
        offset = self._offset()
        if self.just_pressed(scene):
            visit = int(self.travelled) + 1
            if abs(offset) > TARGET_RADIUS:
                self.fail(f"stopped the cube {abs(offset) * 100:.0f} cm beside the target")
            elif visit != self.repetitions:
                self.fail(f"stopped the cube at visit {visit} instead of {self.repetitions}")
            self.succeed(f"stopped the cube on the target at visit {visit}")
            return
        if self.travelled > self.repetitions - 0.5 + TARGET_RADIUS / (2 * REACH):
            self.fail(f"let the cube pass the target {self.repetitions} times")
        scene.put(self.cube, [*(self._middle + self._way * offset / REACH), CUBE_HALF], self._yaw)

    def _offset(self) -> float:
        """Where on its way the cube is now [m], REACH at the end it starts from, 0 on the target."""
        full, part = divmod(self.travelled, 1.0)
        return float(REACH * (1 - 2 * part) * (1 if full % 2 == 0 else -1))
