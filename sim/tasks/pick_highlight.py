"""PickHighlight (RoboMME): press the button, cubes are highlighted for a moment; pick up all of them, press again.

Rules, decided from physics once per control step:
- the first press shows a white disc under the highlighted cubes, for two seconds;
- a highlighted cube counts when it was picked up and put back onto the table; the order is free;
- a cube that was dropped from above is due again;
- picking up a cube before the press, one that was not highlighted, or one twice fails the episode at once;
- so does pressing again before all are back. A press ends when the hand has risen from the button.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from memrt.sim.objects import COLOURS, Button, Cube, Marker, Placement, SceneLayout
from memrt.sim.scene import Scene
from memrt.sim.tasks.base import CLEAR, ORDINALS, Step, Task
from memrt.sim.tasks.layout import BACK_X, WORKSPACE_Y, scatter

CUBES = {"easy": 3, "medium": 4, "hard": 6}  # RoboMME's difficulty table
HIGHLIGHTED = {"easy": 1, "medium": 2, "hard": 3}
HIGHLIGHT_STEPS = 40  # control steps that a highlight is shown: two calls of the high level see it

CUBES_X = (0.44, 0.66)  # in front of the button [m]
BUTTON_Y = (-0.20, 0.20)


class PickHighlight(Task):
    """State of one episode: presses, the cube in the hand, the cubes put back."""

    name = "PickHighlight"

    def generate(self, rng: np.random.Generator) -> SceneLayout:
        """Colours are drawn with replacement: several cubes may look alike, and only their place tells them apart.

        The subgoals take the highlighted ones from left to right in the front image: an order that can be learned.
        """
        colours = [str(colour) for colour in rng.choice(list(COLOURS), CUBES[self.difficulty])]
        seen: Counter[str] = Counter()
        cubes = []
        for colour, at in zip(colours, scatter(rng, len(colours), x_range=CUBES_X, y_range=WORKSPACE_Y), strict=True):
            seen[colour] += 1
            cubes.append(Cube(f"{colour}_cube" + (f"_{seen[colour]}" if seen[colour] > 1 else ""), colour, at))
        self.repetitions = HIGHLIGHTED[self.difficulty]
        chosen = [cubes[i] for i in rng.permutation(len(cubes))[: self.repetitions]]
        self.highlighted = [cube.name for cube in sorted(chosen, key=lambda cube: cube.at.y)]
        self.put_back: list[str] = []
        self.current = ""
        self.pressed_at: int | None = None
        self._risen = False
        button = Placement(float(rng.uniform(*BACK_X)), float(rng.uniform(*BUTTON_Y)))
        markers = (Marker(f"{cube.name}_marker", cube.at) for cube in cubes if cube.name in self.highlighted)
        return SceneLayout((*cubes, *markers, Button("button", button)))

    @property
    def goal(self) -> str:
        """The instruction in the benchmark's phrasing."""
        return "first press the button, then pick up all highlighted cubes, finally press the button again to stop"

    @property
    def step(self) -> Step:
        """What is due now."""
        if self.pressed_at is None:
            return Step("press", "button", 1)
        if self.current:
            return Step("put", self.current, len(self.put_back) + 1, f"{self.current}_marker")
        left = [cube for cube in self.highlighted if cube not in self.put_back]
        if left:
            return Step("pick", left[0], len(self.put_back) + 1)
        return Step("press", "button", 2)

    @property
    def segment(self) -> int:
        """Press, pick 1, put back 1, pick 2, …, press."""
        return (self.pressed_at is not None) + 2 * len(self.put_back) + bool(self.current)

    @property
    def segments(self) -> int:
        """A pick and a put for every highlighted cube, between two presses."""
        return 2 * self.repetitions + 2

    def words(self, step: Step) -> str:
        """A step in the benchmark's phrasing."""
        if step.skill == "press":
            return "press the button{at}" + (" to stop" if step.ordinal > 1 else "")
        if step.skill == "put":
            return "place the cube onto the table"
        which = f"{ORDINALS[step.ordinal - 1]} highlighted" if self.repetitions > 1 else "highlighted"
        thing = self.layout[step.thing]
        assert isinstance(thing, Cube)
        return f"pick up the {which} cube{{at}}, which is {thing.colour}"

    def watch(self, scene: Scene) -> None:
        """Show and hide the highlights; count presses, picks and what was put back."""
        self._watch_button(scene)
        self._watch_highlights(scene)
        if self.current:
            self._watch_current(scene)
        else:
            for cube in self.layout.of(Cube):
                if self.lifted(scene, cube.name):
                    self._picked_up(cube)

    def _watch_button(self, scene: Scene) -> None:
        pressed = self.just_pressed(scene)
        self._risen = self._risen or (self.pressed_at is not None and scene.tcp_position()[2] >= CLEAR)
        if not pressed:
            return
        if self.pressed_at is None:
            self.pressed_at = self.control_steps
        elif self._risen:
            if len(self.put_back) == self.repetitions and not self.current:
                self.succeed(f"picked up all {self.repetitions} highlighted cubes, then pressed the button again")
            self.fail(f"pressed again after {len(self.put_back)} of {self.repetitions} highlighted cubes")

    def _watch_highlights(self, scene: Scene) -> None:
        if self.pressed_at is None:
            return
        elapsed = self.control_steps - self.pressed_at
        if elapsed == 0:
            for cube in self.highlighted:
                x, y, _ = scene.position(cube)
                scene.put(f"{cube}_marker", (x, y, 0.0005))
        if elapsed in (0, HIGHLIGHT_STEPS):
            for cube in self.highlighted:
                scene.show(f"{cube}_marker", elapsed == 0)

    def _watch_current(self, scene: Scene) -> None:
        if self.left_alone(scene, self.current):
            self.put_back.append(self.current)
            self.current = ""
        elif scene.pads_touching(self.current) == 0 and scene.tcp_position()[2] >= CLEAR:
            self.current = ""  # dropped, or put onto another cube: the same pick is due again

    def _picked_up(self, cube: Cube) -> None:
        if self.pressed_at is None:
            self.fail(f"picked up the {cube.words} before the button was pressed")
        elif cube.name not in self.highlighted:
            self.fail(f"picked up a {cube.words} that was not highlighted")
        elif cube.name in self.put_back:
            self.fail(f"picked up the same {cube.words} twice")
        else:
            self.current = cube.name
