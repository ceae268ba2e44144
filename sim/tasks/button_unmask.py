"""ButtonUnmask (RoboMME): containers come down over coloured cubes; press the button, then pick up the right container.

Rules, decided from physics once per control step:
- the cubes are seen for a moment, then the containers come down over them; until then no cube may be moved;
- pressing stays due until all containers stand, then picking is: a container is picked up when held clear of the table;
- picking up one before that, or another than the one that is due, fails the episode at once;
- with two named cubes the first container has to be put down before the second is picked up, in the order of the goal.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from memrt.sim.objects import (
    COLOURS,
    CONTAINER_HALF,
    CONTAINER_HEIGHT,
    Button,
    Container,
    Cube,
    Placement,
    SceneLayout,
)
from memrt.sim.scene import Scene
from memrt.sim.tasks.base import CLEAR, MOVED, Step, Task
from memrt.sim.tasks.containers import ABOVE, CONTAINERS_X, CONTAINERS_Y, Lowering
from memrt.sim.tasks.layout import BACK_X, CUBE_YAW, scatter

CONTAINERS = {"easy": 3, "medium": 5, "hard": 15}  # RoboMME's difficulty table
NAMED = {"easy": 1, "medium": 1, "hard": 2}

SEEN_STEPS = 16  # control steps before the containers come: the first two calls of the high level see all cubes
BUTTONS_Y = (-0.20, 0.20)  # shared out among the buttons, 5 cm clear of each share's ends [m]
ROWS, COLUMNS = 3, 5  # of the crowded table
JITTER_X, JITTER_Y = 0.005, 0.010  # [m]


class ButtonUnmask(Task):
    """State of one episode: which buttons were pressed, which containers were picked up and put down."""

    name = "ButtonUnmask"

    def generate(self, rng: np.random.Generator) -> SceneLayout:
        """Cubes of all colours stand under the first containers; the first colours are the named ones."""
        return self.arrange(rng, self.places(rng), NAMED[self.difficulty], ("button",))

    def places(self, rng: np.random.Generator) -> list[Placement]:
        """Where the containers stand: anywhere, or on a grid when there are too many for that."""
        count = CONTAINERS[self.difficulty]
        if count < ROWS * COLUMNS:
            return scatter(rng, count, x_range=CONTAINERS_X, y_range=CONTAINERS_Y)
        cells = [(x, y) for x in np.linspace(*CONTAINERS_X, ROWS) for y in np.linspace(*CONTAINERS_Y, COLUMNS)]
        return [
            Placement(
                float(cells[cell][0] + rng.uniform(-JITTER_X, JITTER_X)),
                float(cells[cell][1] + rng.uniform(-JITTER_Y, JITTER_Y)),
                float(rng.uniform(-CUBE_YAW, CUBE_YAW)),
            )
            for cell in rng.permutation(count)
        ]

    def arrange(
        self, rng: np.random.Generator, places: list[Placement], named: int, buttons: tuple[str, ...]
    ) -> SceneLayout:
        """Put a cube of every colour under the first containers, and the buttons beside each other."""
        colours = [str(colour) for colour in rng.permutation(list(COLOURS))]
        self.repetitions = named
        self.named = colours[:named]
        self.buttons = buttons
        self.pressed: list[str] = []
        self.picked = 0
        self.put_down = 0
        containers = [Container(f"container_{i}", at) for i, at in enumerate(places, start=1)]
        cubes = [Cube(f"{colour}_cube", colour, at) for colour, at in zip(colours, places, strict=False)]
        self.hiding = {cube.colour: box.name for cube, box in zip(cubes, containers, strict=False)}
        self._lowering = Lowering({box.name: box.at for box in containers})
        edges = np.linspace(*BUTTONS_Y, len(buttons) + 1)
        to_press = (
            Button(name, Placement(float(rng.uniform(*BACK_X)), float(rng.uniform(low + 0.05, high - 0.05))))
            for name, (low, high) in zip(buttons, pairwise(edges), strict=True)
        )
        return SceneLayout((*cubes, *containers, *to_press))

    @property
    def goal(self) -> str:
        """The instruction in the benchmark's phrasing."""
        first = f"first press {self.buttons_in_words}, then pick up the container hiding the {self.named[0]} cube"
        if len(self.named) == 1:
            return first
        return f"{first}, finally pick up another container hiding the {self.named[1]} cube"

    @property
    def buttons_in_words(self) -> str:
        """What the goal says is to be pressed."""
        return "the button"

    @property
    def step(self) -> Step:
        """What is due now."""
        if not self.ready:
            left = [name for name in self.buttons if name not in self.pressed]
            return Step("press", (left or self.pressed[-1:])[0], self.presses_over + 1)
        if self.picked > self.put_down:
            colour = self.named[self.picked - 1]
            return Step("put", self.hiding[colour], self.picked, f"{colour}_cube")
        return Step("pick", self.hiding[self.named[self.picked]], self.picked + 1)

    @property
    def segment(self) -> int:
        """Presses, pick 1, put down 1, pick 2."""
        return self.presses_over + self.picked + self.put_down

    @property
    def segments(self) -> int:
        """The presses, a pick for every named cube, and a put between two picks."""
        return len(self.buttons) + 2 * self.repetitions - 1

    @property
    def ready(self) -> bool:
        """Whether the buttons have been pressed and the containers stand still: now one may be picked up."""
        return len(self.pressed) == len(self.buttons) and self.still

    @property
    def presses_over(self) -> int:
        """How many presses are behind; the hand stays on the last button while containers move."""
        return len(self.buttons) if self.ready else min(len(self.pressed), len(self.buttons) - 1)

    def words(self, step: Step) -> str:
        """A step in the benchmark's phrasing."""
        if step.skill == "press":
            return "press the button{at}"
        if step.skill == "pick":
            return f"pick up the container{{at}} that hides the {self.named[step.ordinal - 1]} cube"
        return "put down the container"

    @property
    def still(self) -> bool:
        """Whether the containers have come down and will not be moved any more."""
        return self._lowering.done

    def in_sight(self, scene: Scene, name: str) -> bool:
        """A container above the picture is not in sight, nor is a cube under a container."""
        x, y, z = scene.position(name)
        if isinstance(self.layout[name], Container):
            return bool(z < ABOVE / 2)
        covers = (scene.position(box.name) for box in self.layout.of(Container))
        return not any(np.hypot(x - c[0], y - c[1]) < CONTAINER_HALF and c[2] < CONTAINER_HEIGHT for c in covers)

    def begin(self, scene: Scene) -> None:
        """The containers wait above the picture."""
        self._lowering.begin(scene)

    def move(self, scene: Scene) -> None:
        """Move the containers by one control step."""
        if self.control_steps > SEEN_STEPS:
            self._lowering.advance(scene)

    def watch(self, scene: Scene) -> None:
        """Move the containers; count presses and picks."""
        if not self._lowering.done:
            self._watch_cubes(scene)
        if not self.still:
            self.move(scene)
        self._watch_buttons(scene)
        self._watch_hand(scene)

    def _watch_cubes(self, scene: Scene) -> None:
        for cube in self.layout.of(Cube):
            if np.hypot(*(scene.position(cube.name)[:2] - [cube.at.x, cube.at.y])) > MOVED:
                self.fail(f"moved the {cube.words} before a container covered it")

    def _watch_buttons(self, scene: Scene) -> None:
        self.pressed += [name for name in self.buttons if name not in self.pressed and scene.pressed(name)]

    def _watch_hand(self, scene: Scene) -> None:
        if self.picked > self.put_down:
            held = self.hiding[self.named[self.picked - 1]]
            if scene.pads_touching(held) == 0 and scene.tcp_position()[2] >= CLEAR:
                self.put_down += 1
            return
        for container in self.layout.of(Container):
            if self.lifted(scene, container.name):
                self._picked_up(container.name)

    def _picked_up(self, container: str) -> None:
        due = self.named[self.picked]
        if len(self.pressed) < len(self.buttons):
            self.fail(f"picked up a container before pressing {self.buttons_in_words}")
        elif not self.still:
            self.fail("picked up a container before all containers stood still")
        elif container != self.hiding[due]:
            under = next((f"the {colour} cube" for colour, name in self.hiding.items() if name == container), "nothing")
            self.fail(f"picked up the container that hides {under} instead of the {due} cube")
        elif self.picked + 1 == len(self.named):
            self.succeed(f"pressed, then picked up the container over the {' and the '.join(self.named)} cube")
        else:
            self.picked += 1
