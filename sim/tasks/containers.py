"""Containers as tasks move them: down over the cubes, and two by two to each other's places.

Both movements stand still while the hand is in their way, so that nothing passes through the arm. They go on by one
step whenever they are asked to, once per control step; where everything is then depends on nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from memrt.sim.objects import CONTAINER_HALF, CONTAINER_HEIGHT, KNOB_HEIGHT, Placement
from memrt.sim.scene import Scene
from memrt.sim.tasks.layout import BACK_X

CONTAINERS_X = (0.45, 0.67)  # where containers stand: within reach, in the front view, in front of the buttons [m]
CONTAINERS_Y = (-0.24, 0.24)

ABOVE = 0.50  # where containers wait, above the front camera's picture [m]
LOWERING_STEPS = 16  # control steps from there to the table
HAND_X = 0.078  # half a hand, half a turned container and a centimetre, forwards [m]
HAND_Y = 0.150  # the same, sideways [m]

SWAP_STEPS = 32  # control steps: two calls of the high level see every swap on its way
LANE = 0.055  # how far each of the two gives way sideways [m]
APART = 0.108  # between centres; containers turned any way do not touch [m]
LOW = CONTAINER_HEIGHT + KNOB_HEIGHT + 0.03  # fingertips below this would meet a container that moves past [m]

_Point = NDArray[np.float64]


def smooth(share: float) -> float:
    """Minimum jerk from 0 to 1, at rest at both ends."""
    return share**3 * (10 - 15 * share + 6 * share**2)


class Lowering:
    """Lets containers down, each over its place. A container waits while the hand or the forearm is below it."""

    def __init__(self, places: Mapping[str, Placement]) -> None:
        self._places = places
        self._steps = dict.fromkeys(places, 0)

    @property
    def done(self) -> bool:
        """Whether all containers stand on the table."""
        return all(steps == LOWERING_STEPS for steps in self._steps.values())

    def begin(self, scene: Scene) -> None:
        """Hang the containers above the picture."""
        for name, at in self._places.items():
            scene.hold_up(name)
            scene.put(name, (at.x, at.y, scene.layout[name].height + ABOVE), at.yaw)

    def advance(self, scene: Scene) -> None:
        """Let down what is not down and not in the hand's way, by one control step."""
        hand = scene.tcp_position()
        for name, at in self._places.items():
            below = at.x < hand[0] + HAND_X and abs(at.y - hand[1]) < HAND_Y
            if self._steps[name] == LOWERING_STEPS or below:
                continue
            self._steps[name] += 1
            above = ABOVE * (1.0 - smooth(self._steps[name] / LOWERING_STEPS))
            scene.put(name, (at.x, at.y, scene.layout[name].height + above), at.yaw)
            scene.hold_up(name, self._steps[name] < LOWERING_STEPS)


class Swap(NamedTuple):
    """Two containers that change places; `side` (1 or -1) tells which way round."""

    first: str
    second: str
    side: int


def passing(start: _Point, end: _Point, share: float | NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Where the one that goes from `start` to `end` is, x, y [m]: on half an ellipse, the other on its other half.

    For shares of shape [...] the points have shape [..., 2].
    """
    half = (end - start) / 2
    across = np.array([-half[1], half[0]]) / max(float(np.hypot(*half)), 1e-9)
    angle = np.pi * np.asarray(share)[..., None]
    point: NDArray[np.float64] = start + half - half * np.cos(angle) + side * LANE * np.sin(angle) * across
    return point


@dataclass(slots=True)
class _Move:
    name: str
    start: _Point
    end: _Point


class Swapping:
    """Carries out swaps one after another; the cube in a container goes with it."""

    def __init__(self, swaps: Sequence[Swap], inside: Mapping[str, str]) -> None:
        self._swaps = swaps
        self._inside = inside
        self._finished = 0
        self._steps = 0
        self._moves: list[_Move] = []

    @property
    def done(self) -> bool:
        """Whether all swaps are over."""
        return self._finished == len(self._swaps)

    def advance(self, scene: Scene) -> None:
        """Go on by one control step, unless the hand is down among the containers."""
        hand = scene.tcp_position()
        if self.done or (hand[2] < LOW and hand[0] > BACK_X[1] + CONTAINER_HALF):
            return
        swap = self._swaps[self._finished]
        if self._steps == 0:
            self._moves = [
                *self._moves_of(scene, swap.first, swap.second),
                *self._moves_of(scene, swap.second, swap.first),
            ]
        self._steps += 1
        for move in self._moves:
            x, y = passing(move.start, move.end, smooth(self._steps / SWAP_STEPS), swap.side)
            thing = scene.layout[move.name]
            scene.put(move.name, (x, y, thing.height), thing.at.yaw)
        if self._steps == SWAP_STEPS:
            self._finished, self._steps = self._finished + 1, 0

    def _moves_of(self, scene: Scene, container: str, other: str) -> list[_Move]:
        start, end = scene.position(container)[:2], scene.position(other)[:2]
        moves = [_Move(container, start, end)]
        if container in self._inside:
            cube = self._inside[container]
            offset = scene.position(cube)[:2] - start
            moves.append(_Move(cube, start + offset, end + offset))
        return moves


def draw_swaps(rng: np.random.Generator, places: Sequence[Placement], count: int) -> list[tuple[int, int, int]] | None:
    """Swaps (index, index, side) in which no container touches another or leaves the area; None when there are none.

    No swap undoes the one before it, and the first container ends elsewhere than it began.
    """
    where = [np.array([at.x, at.y]) for at in places]
    swaps: list[tuple[int, int, int]] = []
    for _ in range(count):
        options = [
            (i, j, side)
            for i in range(len(where))
            for j in range(i + 1, len(where))
            for side in (-1, 1)
            if (not swaps or swaps[-1][:2] != (i, j)) and _clear(where, i, j, side)
        ]
        if not options:
            return None
        i, j, side = options[int(rng.integers(len(options)))]
        where[i], where[j] = where[j], where[i]
        swaps.append((i, j, side))
    moved = float(np.hypot(*(where[0] - [places[0].x, places[0].y])))
    return swaps if moved > APART else None


def _clear(where: Sequence[_Point], i: int, j: int, side: int) -> bool:
    shares = np.linspace(0.0, 1.0, SWAP_STEPS + 1)
    path = np.concatenate([passing(where[i], where[j], shares, side), passing(where[j], where[i], shares, side)])
    low, high = np.transpose([CONTAINERS_X, CONTAINERS_Y])
    others = [point for k, point in enumerate(where) if k not in (i, j)]
    inside = bool(np.all((low <= path) & (path <= high)))
    return inside and all(np.hypot(*(path - other).T).min() >= APART for other in others)
