"""Spatial memories of the counting tasks: where the cube of the goal is, and what the bin has swallowed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

from memrt.train.labels.bin_fill import BinFillProgress
from memrt.train.labels.pick_x_times import cube_of_goal
from memrt.train.labels.scene_text import Pixel, SeenScene, place
from memrt.train.labels.stop_cube import StopCubeProgress
from memrt.train.labels.swing_x_times import SIDES, SwingXtimesProgress
from memrt.train.labels.wording import SpatialNotes, counted, listed, named

# A target of 5 cm radius as the front camera shows it, and how much higher in the image a cube's middle lies [pixels].
TARGET_ROWS, TARGET_COLUMNS, CUBE_ABOVE = 13.0, 19.0, 5.0
CLEAR_OF_TARGET = 26  # columns between the middles of a target and a cube that is beside it, 7 cm


@dataclass(frozen=True, slots=True)
class CubeAndTarget(SpatialNotes):
    """PickXtimes: the cube is held, on the target or beside it."""

    cube: str
    held: bool = False
    cube_at: Pixel | None = None
    target_at: Pixel | None = None

    @staticmethod
    def of_goal(goal: str) -> CubeAndTarget | None:
        """None for another task's goal."""
        cube = cube_of_goal(goal)
        return CubeAndTarget(cube) if cube else None

    def see(self, scene: SeenScene) -> CubeAndTarget:
        """The newest of both."""
        cube_at, target_at = scene.one(self.cube) or self.cube_at, scene.one("target") or self.target_at
        return replace(self, held=scene.held == self.cube, cube_at=cube_at, target_at=target_at)

    def text(self, *, grounded: bool) -> str:
        """Where the cube is."""
        if self.cube_at is None or self.target_at is None:
            return ""
        cube = self.cube.capitalize()
        target = f", target {_at(self.target_at)}" if grounded else ""
        if self.held:
            return f"{cube} held{target}."
        rows = (self.cube_at[0] + CUBE_ABOVE - self.target_at[0]) / TARGET_ROWS
        columns = (self.cube_at[1] - self.target_at[1]) / TARGET_COLUMNS
        if rows**2 + columns**2 <= 1:
            return f"{cube} on {named('the target', _at(self.target_at), grounded=grounded)}."
        return f"{cube} {_at(self.cube_at) if grounded else 'beside the target'}{target}."


@dataclass(frozen=True, slots=True)
class BinContents(SpatialNotes):
    """BinFill: what was on the table and is not any more is in the bin."""

    asked: tuple[str, ...]
    at_first: tuple[int, ...] = ()
    in_bin: tuple[int, ...] = ()
    bin_at: Pixel | None = None

    @staticmethod
    def of_goal(goal: str) -> BinContents | None:
        """None for another task's goal."""
        progress = BinFillProgress.of_goal(goal)
        return BinContents(tuple(f"{colour} cube" for colour, _ in progress.asked)) if progress else None

    def see(self, scene: SeenScene) -> BinContents:
        """Count the cubes that are left."""
        in_sight = Counter(words for words, _ in scene.cubes())
        left = tuple(in_sight[cube] for cube in self.asked)
        at_first = self.at_first or left
        in_bin = tuple(first - now for first, now in zip(at_first, left, strict=True))
        return replace(self, at_first=at_first, in_bin=in_bin, bin_at=scene.one("bin") or self.bin_at)

    def text(self, *, grounded: bool) -> str:
        """The asked colours in the bin."""
        if self.bin_at is None:
            return ""
        bin_words = named("the bin", _at(self.bin_at), grounded=grounded)
        cubes = [counted(count, cube) for cube, count in zip(self.asked, self.in_bin, strict=True) if count > 0]
        return f"In {bin_words}: {listed(cubes)}." if cubes else f"{bin_words.capitalize()} is empty."


@dataclass(frozen=True, slots=True)
class CubeAndSides(SpatialNotes):
    """SwingXtimes: the cube is held or on the table; the targets lie at the sides."""

    cube: str
    held: bool = False
    cube_at: Pixel | None = None
    sides_at: tuple[Pixel, Pixel] | None = None

    @staticmethod
    def of_goal(goal: str) -> CubeAndSides | None:
        """None for another task's goal."""
        progress = SwingXtimesProgress.of_goal(goal)
        return CubeAndSides(progress.cube) if progress else None

    def see(self, scene: SeenScene) -> CubeAndSides:
        """The newest of all."""
        right, left = (scene.one(side) for side in SIDES)
        sides_at = (right, left) if right and left else self.sides_at
        return replace(self, held=scene.held == self.cube, cube_at=scene.one(self.cube), sides_at=sides_at)

    def text(self, *, grounded: bool) -> str:
        """Where the cube is."""
        if self.cube_at is None or self.sides_at is None:
            return ""
        where = "held" if self.held else (_at(self.cube_at) if grounded else "on the table")
        text = f"{self.cube.capitalize()} {where}"
        sides = [f"{side} {_at(at)}" for side, at in zip(SIDES, self.sides_at, strict=True)]
        return f"{', '.join([text, *sides])}." if grounded else f"{text}."


@dataclass(frozen=True, slots=True)
class TravellingCube(SpatialNotes):
    """StopCube: on which side of the target the cube is, as the image shows it: on the other one, a visit is over."""

    side: Literal["left", "right"] | None = None
    on_target: bool = False
    target_at: Pixel | None = None

    @staticmethod
    def of_goal(goal: str) -> TravellingCube | None:
        """None for another task's goal."""
        return TravellingCube() if StopCubeProgress.of_goal(goal) else None

    def see(self, scene: SeenScene) -> TravellingCube:
        """The cube on its way."""
        target, cubes = scene.one("target"), scene.cubes()
        if target is None or not cubes:
            return self
        away = cubes[0][1][1] - target[1]
        if abs(away) < CLEAR_OF_TARGET:
            return replace(self, on_target=True, target_at=target)
        return TravellingCube("left" if away < 0 else "right", on_target=False, target_at=target)

    def text(self, *, grounded: bool) -> str:
        """The side, and on the target the side that it came from."""
        if self.target_at is None:
            return ""
        target = named("the target", _at(self.target_at), grounded=grounded)
        if not self.on_target:
            return f"Cube {self.side} of {target}."
        return f"Cube on {target}, coming from the {self.side}." if self.side else f"Cube on {target}."


def _at(pixel: Pixel) -> str:
    return place(pixel, grounded=True)
