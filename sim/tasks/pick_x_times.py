"""PickXtimes (RoboMME): pick the named cube and place it on the target N times, then press the button.

Rules, decided from physics once per control step:
- a pick counts when the named cube, between both finger pads, is lifted clear of the table;
- a place counts when that cube then rests on the target and no finger touches it;
- a cube that comes to rest elsewhere was dropped: the same pick is due again;
- lifting another cube, one pick too many, or pressing before N places fails the episode at once.
"""

from __future__ import annotations

import numpy as np

from memrt.sim.scene import BUTTON_PRESSED, COLOURS, CUBE_HALF, TARGET_RADIUS, Scene, SceneLayout
from memrt.sim.tasks.base import EPISODE_CAP, RUNNING, Difficulty, Outcome, Step, SubgoalStyle
from memrt.sim.tasks.layout import sample_layout

ORDINALS = ("first", "second", "third", "fourth", "fifth")
NUMBERS = ("one", "two", "three", "four", "five")
COLOURS_ON_TABLE = {"easy": 1, "medium": 3, "hard": 3}  # RoboMME's difficulty table
REPETITIONS = {"easy": (1, 3), "medium": (1, 3), "hard": (4, 5)}

LIFTED = 0.07  # height of a cube's centre that counts as picked up [m]
RESTING = 0.006  # a cube's centre this close to its resting height lies on the table [m]
CLEAR_OF_CUBE = 0.09  # the hand's height at which a place is over and the next step begins [m]
MOVED = 0.012  # a cube displaced by more than this is pointed at anew [m]


class PickXtimes:
    """State of one episode: picks, places, and the pixels the running subgoal points at."""

    def __init__(self, seed: int, difficulty: Difficulty | None = None) -> None:
        rng = np.random.Generator(np.random.PCG64(seed))
        difficulty = difficulty or ("easy", "medium", "hard")[int(rng.integers(3))]
        low, high = REPETITIONS[difficulty]
        colours = [str(c) for c in rng.permutation(list(COLOURS))[: COLOURS_ON_TABLE[difficulty]]]
        self.repetitions = int(rng.integers(low, high + 1))
        self.colour = colours[0]
        self.difficulty = difficulty
        self.layout: SceneLayout = sample_layout(rng, colours)
        self.outcome: Outcome = RUNNING
        self.picks = 0
        self.places = 0
        self._control_steps = 0
        self._pointed_step: Step | None = None
        self._pointed_at = np.zeros(3)

    @property
    def goal(self) -> str:
        """The instruction in the benchmark's phrasing."""
        cube = f"pick up the {self.colour} cube and place it on the target"
        if self.repetitions == 1:
            return f"{cube}, then press the button to stop"
        return f"{cube}, repeating this action {NUMBERS[self.repetitions - 1]} times, then press the button to stop"

    @property
    def step(self) -> Step:
        """What is due now."""
        if self.picks > self.places:
            return Step("place", self.colour, self.picks)
        if self.places < self.repetitions:
            return Step("pick", self.colour, self.picks + 1)
        return Step("press", self.colour, self.picks)

    def update(self, scene: Scene) -> None:
        """Advance the counters by what physics shows after one control step."""
        if self.outcome.ended:
            return
        self._control_steps += 1
        self._check_lifts(scene)
        self._check_table(scene)
        if not self.outcome.ended and scene.data.qpos[scene.button_index] >= BUTTON_PRESSED:
            self._pressed()
        if not self.outcome.ended and self._control_steps >= EPISODE_CAP:
            self.outcome = Outcome("failure", f"not finished within {EPISODE_CAP} control steps")
        self._point(scene)

    def subgoal(self, scene: Scene, style: SubgoalStyle) -> str:
        """The running step in words."""
        self._point(scene)
        step = self.step
        row, col = scene.pixel(self._pointed_at)
        at = f" <{row}, {col}>" if style == "grounded" else ""
        if step.skill == "pick":
            return f"pick up the {step.colour} cube{at} for the {ORDINALS[min(step.ordinal, 5) - 1]} time"
        if step.skill == "place":
            return f"place the {step.colour} cube onto the target{at}"
        return f"press the button{at} to stop"

    def describe(self, scene: Scene) -> str:
        """All objects with their pixels and the gripper's state, in a fixed order."""
        parts = [
            _pointed(f"{colour} cube", scene.pixel(scene.cube_position(colour)))
            for colour in COLOURS
            if colour in self.layout.cubes
        ]
        parts += [
            _pointed("target", scene.pixel(scene.target_position())),
            _pointed("button", scene.pixel(scene.button_position())),
        ]
        opening = float(scene.data.qpos[scene.finger_index].sum())
        held = next((c for c in self.layout.cubes if scene.pads_touching(c) == 2), None)
        state = f"holding the {held} cube" if held else ("open" if opening > 0.06 else "closed")
        parts.append(_pointed("gripper", scene.pixel(scene.tcp_position())) + f" {state}")
        return "; ".join(parts)

    def _check_lifts(self, scene: Scene) -> None:
        for colour in self.layout.cubes:
            if scene.cube_position(colour)[2] < LIFTED or scene.pads_touching(colour) < 2:
                continue
            if colour != self.colour:
                self.outcome = Outcome("failure", f"picked up the {colour} cube instead of the {self.colour} one")
            elif self.picks == self.places:
                if self.places == self.repetitions:
                    self.outcome = Outcome("failure", f"picked the cube up more than {self.repetitions} times")
                self.picks += 1

    def _check_table(self, scene: Scene) -> None:
        if self.picks == self.places:
            return
        position = scene.cube_position(self.colour)
        resting = abs(position[2] - CUBE_HALF) < RESTING and scene.pads_touching(self.colour) == 0
        if not resting or scene.tcp_position()[2] < CLEAR_OF_CUBE:
            return
        if np.hypot(*(position - scene.target_position())[:2]) <= TARGET_RADIUS:
            self.places += 1
        else:
            self.picks -= 1

    def _pressed(self) -> None:
        if self.places == self.repetitions:
            self.outcome = Outcome("success", f"placed {self.repetitions} times, then pressed the button")
        else:
            self.outcome = Outcome("failure", f"pressed the button after {self.places} of {self.repetitions} places")

    def _point(self, scene: Scene) -> None:
        """Fix the pixels of a step when it begins; a cube that was pushed aside is pointed at anew."""
        step = self.step
        where = {
            "pick": scene.cube_position(self.colour),
            "place": scene.target_position(),
            "press": scene.button_position(),
        }[step.skill]
        pushed = (
            step.skill == "pick"
            and where[2] < CUBE_HALF + RESTING
            and np.hypot(*(where - self._pointed_at)[:2]) > MOVED
        )
        if step != self._pointed_step or pushed:
            self._pointed_step, self._pointed_at = step, where


def _pointed(name: str, pixel: tuple[int, int]) -> str:
    return f"{name} <{pixel[0]}, {pixel[1]}>"
