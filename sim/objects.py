"""What can stand on the table. Each kind knows its measures and its MJCF; a layout is a list of such objects.

Heights are above the table's surface, z = 0. Names are unique within a layout and are what scene, tasks and expert
call an object by: `red_cube`, `red_cube_2`, `target`, `left_target`, `button`, `bin`, `container_1`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, TypeVar

COLOURS = {"red": (0.85, 0.12, 0.10), "green": (0.10, 0.65, 0.18), "blue": (0.12, 0.25, 0.85)}

CUBE_HALF = 0.02  # RoboMME's 4 cm cubes [m]
TARGET_RADIUS = 0.05
BUTTON_TRAVEL = 0.012  # [m]
BUTTON_PRESSED = 0.007  # travel that counts as a press [m]
BUTTON_TOP = 0.050  # height of the released cap [m]
BIN_HALF = 0.070  # outer half width [m]
BIN_WALL = 0.004
BIN_HEIGHT = 0.080
CONTAINER_HALF = 0.037  # outer half width: a cube turned by 0.25 rad has 9 mm of room on every side [m]
CONTAINER_WALL = 0.003
CONTAINER_HEIGHT = 0.056  # without the knob [m]
KNOB_HALF = 0.012
KNOB_HEIGHT = 0.030
MARKER_RADIUS = 0.038  # reaches beyond a cube's corners [m]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one object stands on the table: x, y [m] and yaw [rad]."""

    x: float
    y: float
    yaw: float = 0.0


@dataclass(frozen=True, slots=True)
class Cube:
    """A coloured cube that can be picked up. `on_rails`: nothing that touches it moves it, only its task does."""

    name: str
    colour: str
    at: Placement
    on_rails: bool = False

    height: ClassVar[float] = CUBE_HALF  # of the body's origin, its centre, when it rests on the table
    grasp_height: ClassVar[float] = 0.018  # of the fingertips, when it rests on the table
    grip_above: ClassVar[float] = 0.0  # where the fingers hold it, above the body's origin
    grasp_width: ClassVar[float] = 2 * CUBE_HALF

    @property
    def words(self) -> str:
        """What the object is called in sentences."""
        return f"{self.colour} cube"

    def mjcf(self) -> str:
        """The object as MJCF, for the world body."""
        r, g, b = COLOURS[self.colour]
        joint = "" if self.on_rails else f'<freejoint name="{self.name}"/>'
        return f"""
<body name="{self.name}" pos="{self.at.x} {self.at.y} {CUBE_HALF}" euler="0 0 {self.at.yaw}"{_mocap(self.on_rails)}>
  {joint}
  <geom name="{self.name}" type="box" size="{CUBE_HALF} {CUBE_HALF} {CUBE_HALF}" mass=".06" rgba="{r} {g} {b} 1"
        condim="4" friction="1 .02 .001" solref=".004 1"/>
</body>"""


@dataclass(frozen=True, slots=True)
class Container:
    """An opaque cup, upside down, that covers one cube; the hand picks it up by the knob on its top."""

    name: str
    at: Placement

    height: ClassVar[float] = CONTAINER_HEIGHT / 2
    grasp_height: ClassVar[float] = CONTAINER_HEIGHT + KNOB_HEIGHT / 2
    grip_above: ClassVar[float] = CONTAINER_HEIGHT / 2 + KNOB_HEIGHT / 2
    grasp_width: ClassVar[float] = 2 * KNOB_HALF

    @property
    def words(self) -> str:
        """What the object is called in sentences."""
        return "container"

    def mjcf(self) -> str:
        """The object as MJCF, for the world body."""
        side, thin, up = CONTAINER_HALF, CONTAINER_WALL / 2, CONTAINER_HEIGHT / 2
        look = 'rgba=".34 .46 .52 1" condim="4" friction="1 .02 .001" solref=".004 1"'
        walls = _walls(side, thin, up, f'mass=".01" {look}')
        knob = f'<geom type="box" size="{KNOB_HALF} {KNOB_HALF} {KNOB_HEIGHT / 2}"'
        return f"""
<body name="{self.name}" pos="{self.at.x} {self.at.y} {up}" euler="0 0 {self.at.yaw}">
  <freejoint name="{self.name}"/>
  {walls}
  <geom type="box" size="{side} {side} {thin}" pos="0 0 {up - thin}" mass=".02" {look}/>
  {knob} pos="0 0 {up + KNOB_HEIGHT / 2}" mass=".01" {look}/>
</body>"""


@dataclass(frozen=True, slots=True)
class Target:
    """A purple disc in a white ring, flat on the table; nothing collides with it."""

    name: str
    at: Placement

    height: ClassVar[float] = 0.0

    @property
    def words(self) -> str:
        """What the object is called in sentences: `left_target` is the `left-side target`."""
        return self.name.replace("_", "-side ")

    def mjcf(self) -> str:
        """The object as MJCF, for the world body."""
        return f"""
<geom name="{self.name}" type="cylinder" size="{TARGET_RADIUS} .0005" pos="{self.at.x} {self.at.y} .0005"
      rgba=".93 .93 .88 1" contype="0" conaffinity="0"/>
<geom type="cylinder" size="{TARGET_RADIUS * 0.66} .0005" pos="{self.at.x} {self.at.y} .0008"
      rgba=".55 .20 .60 1" contype="0" conaffinity="0"/>"""


@dataclass(frozen=True, slots=True)
class Marker:
    """A white disc under a cube that a task shows for a while to highlight it; hidden when an episode begins."""

    name: str
    at: Placement

    height: ClassVar[float] = 0.0
    words: ClassVar[str] = "highlight"

    def mjcf(self) -> str:
        """The object as MJCF, for the world body."""
        return f"""
<body name="{self.name}" pos="{self.at.x} {self.at.y} .0005" mocap="true">
  <geom type="cylinder" size="{MARKER_RADIUS} .0005" rgba="1 1 1 0" contype="0" conaffinity="0"/>
</body>"""


@dataclass(frozen=True, slots=True)
class Button:
    """A yellow cap on a spring."""

    name: str
    at: Placement

    height: ClassVar[float] = BUTTON_TOP

    @property
    def words(self) -> str:
        """What the object is called in sentences."""
        return self.name.replace("_", " ")

    def mjcf(self) -> str:
        """The object as MJCF, for the world body."""
        return f"""
<body name="{self.name}" pos="{self.at.x} {self.at.y} 0">
  <geom type="box" size=".035 .035 .015" pos="0 0 .015" rgba=".22 .22 .24 1"/>
  <body name="{self.name}_cap" pos="0 0 .040" gravcomp="1">
    <joint name="{self.name}" type="slide" axis="0 0 -1" range="0 {BUTTON_TRAVEL}" stiffness="250" springref="-.004"
           damping="6"/>
    <geom name="{self.name}_cap" type="cylinder" size=".024 .010" mass=".05" rgba=".98 .78 .08 1"/>
  </body>
</body>"""


@dataclass(frozen=True, slots=True)
class Bin:
    """An open box. Its task takes out of sight what falls in, as a chute does: no camera sees what is in the bin."""

    name: str
    at: Placement

    height: ClassVar[float] = BIN_HEIGHT
    words: ClassVar[str] = "bin"

    def mjcf(self) -> str:
        """The object as MJCF, for the world body."""
        walls = _walls(BIN_HALF, BIN_WALL / 2, BIN_HEIGHT / 2, 'rgba=".62 .66 .70 1"')
        return f"""
<body name="{self.name}" pos="{self.at.x} {self.at.y} {BIN_HEIGHT / 2}">
  {walls}
  <geom type="box" size="{BIN_HALF} {BIN_HALF} .001" pos="0 0 {0.001 - BIN_HEIGHT / 2}" rgba=".10 .10 .12 1"/>
</body>"""


SceneObject = Cube | Container | Target | Marker | Button | Bin
Kind = TypeVar("Kind", Cube, Container, Target, Marker, Button, Bin)


@dataclass(frozen=True, slots=True)
class SceneLayout:
    """Everything that varies between episodes: the objects, in the order in which they are built."""

    objects: tuple[SceneObject, ...] = ()

    def __getitem__(self, name: str) -> SceneObject:
        return next(thing for thing in self.objects if thing.name == name)

    def of(self, kind: type[Kind]) -> Iterator[Kind]:
        """The objects of one kind."""
        return (thing for thing in self.objects if isinstance(thing, kind))


def _mocap(wanted: bool) -> str:
    return ' mocap="true"' if wanted else ""


def _walls(side: float, thin: float, up: float, look: str) -> str:
    """Four walls around a body's origin: outer half width, half thickness, half height [m]."""
    middle = side - thin
    walls = [(0.0, s * middle, side, thin) for s in (-1, 1)] + [(s * middle, 0.0, thin, side) for s in (-1, 1)]
    return "".join(f'<geom type="box" size="{wide} {deep} {up}" pos="{x} {y} 0" {look}/>' for x, y, wide, deep in walls)
