"""Spatial memories of what can no longer be seen: cubes under containers, and which cubes were highlighted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from memrt.train.labels.containers import ContainersProgress
from memrt.train.labels.pick_highlight import PickHighlightProgress
from memrt.train.labels.scene_text import Pixel, SeenScene, distance, place
from memrt.train.labels.tracking import Track, follow
from memrt.train.labels.wording import SpatialNotes


@dataclass(frozen=True, slots=True)
class CoveredCubes(SpatialNotes):
    """ButtonUnmask, ButtonUnmaskSwap: the named cubes, seen, covered, moved under their containers, and found again.

    `under` holds the number of the track of the container over a cube; a cube that was `found` no longer matters.
    """

    cubes: tuple[str, ...]
    seen: Mapping[str, Pixel] = field(default_factory=dict)
    under: Mapping[str, int] = field(default_factory=dict)
    found: frozenset[str] = frozenset()
    containers: tuple[Track, ...] = ()

    @staticmethod
    def of_goal(goal: str) -> CoveredCubes | None:
        """None for another task's goal."""
        progress = ContainersProgress.of_goal(goal)
        return CoveredCubes(tuple(f"{colour} cube" for colour in progress.colours)) if progress else None

    def see(self, scene: SeenScene) -> CoveredCubes:
        """A cube that went out of sight is under the container that stands where it was, once all of them stand."""
        lifted = scene.held == "container"  # the others stand still, and what it hid is about to be seen
        containers = self.containers if lifted else follow(self.containers, scene.of("container"))
        in_sight = {cube: pixel for cube in self.cubes if (pixel := scene.one(cube)) is not None}
        found = self.found | (self.under.keys() & in_sight.keys())
        under = dict(self.under)
        if containers and all(container.resting for container in containers):
            covered = self.seen.keys() - in_sight.keys() - under.keys()
            under |= {cube: _nearest(containers, self.seen[cube]) for cube in covered}
        return replace(self, seen={**self.seen, **in_sight}, under=under, found=found, containers=containers)

    def text(self, *, grounded: bool) -> str:
        """Each named cube that was not found yet, and what its container changes places with."""
        return " ".join(
            f"{cube.capitalize()} {self._where(cube, grounded=grounded)}."
            for cube in self.cubes
            if cube in self.seen and cube not in self.found
        )

    @property
    def swapping(self) -> tuple[int, ...]:
        """The two containers that change places, by number; () when none do."""
        on_their_way = tuple(n for n, container in enumerate(self.containers) if not container.resting)
        return on_their_way if self.under and len(on_their_way) == 2 else ()

    def _where(self, cube: str, *, grounded: bool) -> str:
        if cube not in self.under:
            return place(self.seen[cube], grounded=grounded)
        number = self.under[cube]
        text = f"under the container {place(self.containers[number].place, grounded=grounded)}"
        if number in self.swapping:
            [other] = [n for n in self.swapping if n != number]
            text += f", swapping with {'' if grounded else 'the one '}"
            text += place(self.containers[other].place, grounded=grounded)
        return text


def _nearest(containers: Sequence[Track], pixel: Pixel) -> int:
    return min(range(len(containers)), key=lambda number: distance(containers[number].at, pixel))


@dataclass(frozen=True, slots=True)
class HighlightedCubes(SpatialNotes):
    """PickHighlight: the cubes that were highlighted, from left to right, where they stood then."""

    cubes: tuple[tuple[str, Pixel], ...] = ()

    @staticmethod
    def of_goal(goal: str) -> HighlightedCubes | None:
        """None for another task's goal."""
        return HighlightedCubes() if PickHighlightProgress.of_goal(goal) else None

    def see(self, scene: SeenScene) -> HighlightedCubes:
        """A highlight lies under the nearest cube; all are shown at once."""
        highlights = scene.of("highlight")
        if self.cubes or not highlights:
            return self
        cubes = {min(scene.cubes(), key=lambda cube: distance(cube[1], highlight)) for highlight in highlights}
        return HighlightedCubes(tuple(sorted(cubes, key=lambda cube: cube[1][1])))

    def text(self, *, grounded: bool) -> str:
        """All of them, also those that were put back: what was done is the action memory's."""
        cubes = [f"{words} {place(pixel, grounded=grounded)}" for words, pixel in self.cubes]
        return f"Highlighted: {', '.join(cubes)}." if cubes else ""
