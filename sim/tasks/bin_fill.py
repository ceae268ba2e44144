"""BinFill (RoboMME): put the stated number of cubes of each stated colour into the bin, then press the button.

Rules, decided from physics once per control step:
- a pick counts when a cube, between both finger pads, is lifted clear of the table; any cube of the colour will do;
- a cube counts when it has fallen into the bin; it is then out of sight, as everything in the bin is;
- a cube let go elsewhere was dropped: the same pick is due again;
- lifting a cube whose colour is not asked for, or no longer, and pressing before all are in, fails the episode at once.
"""

from __future__ import annotations

import numpy as np

from memrt.sim.objects import BIN_HALF, BIN_HEIGHT, BIN_WALL, COLOURS, Bin, Button, Cube, Placement, SceneLayout
from memrt.sim.scene import Scene
from memrt.sim.tasks.base import NUMBERS, ORDINALS, Step, Task
from memrt.sim.tasks.layout import rectangles, scatter

# RoboMME's difficulty table
COLOURS_ON_TABLE = {"easy": 1, "medium": 2, "hard": 3}
CUBES_ON_TABLE = {"easy": (4, 6), "medium": (8, 10), "hard": (10, 12)}
COLOURS_ASKED = {"easy": (1, 1), "medium": (1, 2), "hard": (2, 3)}
CUBES_ASKED = {"easy": (1, 3), "medium": (2, 4), "hard": (3, 5)}

AREA_X = (0.37, 0.65)  # [m]; the table is full, so it reaches a little farther than the other tasks'
AREA_Y = (-0.26, 0.26)
BIN_X, BIN_Y = (0.35, 0.40), (-0.20, 0.20)  # at the far end, as the camera sees it: it hides nothing [m]
# Half sizes (x, y) of what must be clear around each object for the open hand beside it, which spreads along y [m].
ROOM_BIN, ROOM_BUTTON, ROOM_CUBE = (0.072, 0.092), (0.034, 0.056), (0.029, 0.048)
LET_GO_AFTER = 10  # control steps without a finger on it, and a cube that is not in the bin was dropped
OUT_OF_SIGHT = -0.25  # below the table [m]


class BinFill(Task):
    """State of one episode: what is in the bin, and which cube is being carried there."""

    name = "BinFill"

    def generate(self, rng: np.random.Generator) -> SceneLayout:
        """At least one cube of an asked colour stays on the table: an empty table never says that it is done."""
        colours = [str(c) for c in rng.permutation(list(COLOURS))[: COLOURS_ON_TABLE[self.difficulty]]]
        on_table = _between(rng, CUBES_ON_TABLE[self.difficulty])
        kinds = min(_between(rng, COLOURS_ASKED[self.difficulty]), len(colours))
        self.repetitions = max(_between(rng, CUBES_ASKED[self.difficulty]), kinds)
        self.asked = _shares(rng, colours[:kinds], self.repetitions, dict.fromkeys(colours[:kinds], 1))
        counts = _shares(rng, colours, on_table, {c: self.asked.get(c, 0) + 1 for c in colours})
        self.in_bin = dict.fromkeys(colours, 0)
        self.carried = ""
        self._untouched = 0
        rooms = [ROOM_BIN, ROOM_BUTTON] + [ROOM_CUBE] * on_table
        bin_at = (float(rng.uniform(*BIN_X)), float(rng.uniform(*BIN_Y)))
        button_at, *places = scatter(rng, on_table + 1, rectangles(rooms), AREA_X, AREA_Y, standing=[bin_at])
        numbered = [(colour, number) for colour in colours for number in range(1, counts[colour] + 1)]
        cubes = [
            Cube(f"{colour}_cube" + (f"_{number}" if number > 1 else ""), colour, at)
            for (colour, number), at in zip(numbered, places, strict=True)
        ]
        self._next = self._nearest_to(bin_at, {cube: (cube.at.x, cube.at.y) for cube in cubes})
        return SceneLayout((*cubes, Bin("bin", Placement(*bin_at)), Button("button", button_at)))

    @property
    def goal(self) -> str:
        """The instruction in the benchmark's phrasing."""
        parts = [f"{NUMBERS[n - 1]} {colour} cube{'s' * (n > 1)}" for colour, n in self.asked.items()]
        cubes = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
        return f"put {cubes} into the bin, then press the button to stop"

    @property
    def due(self) -> str:
        """The colour that is due, in the order of the goal; "" when all are in the bin."""
        return next((colour for colour, n in self.asked.items() if self.in_bin[colour] < n), "")

    @property
    def step(self) -> Step:
        """What is due now."""
        if self.carried:
            return Step("drop", self.carried, sum(self.in_bin.values()) + 1, "bin")
        if self.due:
            return Step("pick", self._next, self.in_bin[self.due] + 1)
        return Step("press", "button")

    @property
    def segment(self) -> int:
        """Pick 1, put 1, pick 2, …, press."""
        return 2 * sum(self.in_bin.values()) + bool(self.carried)

    @property
    def segments(self) -> int:
        """A pick and a put for every cube, and the press."""
        return 2 * self.repetitions + 1

    def words(self, step: Step) -> str:
        """A step in the benchmark's phrasing."""
        if step.skill == "pick":
            return f"pick up the {ORDINALS[step.ordinal - 1]} {self.layout[step.thing].words}{{at}}"
        return "put it into the bin{at}" if step.skill == "drop" else "press the button{at}"

    def watch(self, scene: Scene) -> None:
        """Count what falls into the bin, and see to it that nothing else is lifted."""
        for cube in self.layout.of(Cube):
            if scene.shown(cube.name):
                self._watch_cube(scene, cube)
        if self.just_pressed(scene):
            if not self.due and not self.carried:
                self.succeed(f"put {self.repetitions} cubes into the bin, then pressed the button")
            self.fail(f"pressed the button with {sum(self.in_bin.values())} of {self.repetitions} cubes in the bin")

    def _watch_cube(self, scene: Scene, cube: Cube) -> None:
        wanted = self.asked.get(cube.colour, 0) - self.in_bin[cube.colour]
        if cube.name != self.carried and self.lifted(scene, cube.name):
            if wanted <= 0:
                self.fail(f"picked up a {cube.words} too many")
            self.carried, self._untouched = cube.name, 0
        touched = scene.pads_touching(cube.name) > 0
        if not touched and self._inside(scene, cube.name):
            if wanted <= 0:
                self.fail(f"put a {cube.words} too many into the bin")
            self._swallow(scene, cube)
        elif cube.name == self.carried:
            self._untouched = 0 if touched else self._untouched + 1
            if self._untouched >= LET_GO_AFTER:
                self.carried = ""
                self._choose(scene)

    def _inside(self, scene: Scene, name: str) -> bool:
        away = np.abs(scene.position(name) - scene.position("bin"))[:2]
        return bool(away.max() < BIN_HALF - BIN_WALL and scene.position(name)[2] < BIN_HEIGHT)

    def _swallow(self, scene: Scene, cube: Cube) -> None:
        number = sum(self.in_bin.values())
        self.in_bin[cube.colour] += 1
        self.carried = ""
        x, y = scene.position("bin")[:2]
        scene.show(cube.name, False)
        scene.hold_up(cube.name)
        scene.put(cube.name, [x, y + 0.06 * number, OUT_OF_SIGHT])
        self._choose(scene)

    def _choose(self, scene: Scene) -> None:
        """Point at the cube of the due colour that is nearest to the bin: a choice that can be seen in a picture."""
        in_sight = [cube for cube in self.layout.of(Cube) if scene.shown(cube.name)]
        bin_x, bin_y, _ = scene.position("bin")
        self._next = self._nearest_to((bin_x, bin_y), {c: tuple(scene.position(c.name)[:2]) for c in in_sight})

    def _nearest_to(self, bin_at: tuple[float, float], cubes: dict[Cube, tuple[float, ...]]) -> str:
        due = {cube.name: at for cube, at in cubes.items() if cube.colour == self.due}
        return min(due, key=lambda name: np.hypot(due[name][0] - bin_at[0], due[name][1] - bin_at[1]), default="")


def _between(rng: np.random.Generator, bounds: tuple[int, int]) -> int:
    return int(rng.integers(bounds[0], bounds[1] + 1))


def _shares(rng: np.random.Generator, colours: list[str], total: int, least: dict[str, int]) -> dict[str, int]:
    """Split `total` among the colours at random, each getting at least its `least`."""
    shares = {colour: least[colour] for colour in colours}
    while sum(shares.values()) < total:
        shares[colours[int(rng.integers(len(colours)))]] += 1
    return shares
