"""Random but reproducible table layouts: objects apart enough for the open hand to come down between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from memrt.sim.objects import Placement

WORKSPACE_X = (0.40, 0.64)  # [m], where every object can be reached with the hand pointing down
WORKSPACE_Y = (-0.24, 0.24)
BACK_X = (0.335, 0.360)  # nearest to the robot: a hand that presses a button here hides nothing from the front camera
SPACING = 0.105  # between centres [m]: half an open hand, a finger and half a cube
CUBE_YAW = 0.25  # [rad]; the fingers straighten a cube turned this little
ATTEMPTS = 200  # before a table counts as full and is cleared

Range = tuple[float, float]
Clear = Callable[[int, int, float, float], bool]


def scatter(
    rng: np.random.Generator,
    count: int,
    clear: Clear = lambda i, j, dx, dy: bool(np.hypot(dx, dy) >= SPACING),
    x_range: Range = WORKSPACE_X,
    y_range: Range = WORKSPACE_Y,
    standing: Sequence[tuple[float, float]] = (),
) -> list[Placement]:
    """Place `count` objects one by one by rejection; starts again when the table is full.

    `clear(i, j, dx, dy)` says whether object i may stand that far from object j, j < i. Objects that are `standing`
    already come first; they are not among those returned.
    """
    while True:
        placed = list(standing)
        for _ in range(ATTEMPTS):
            x, y = rng.uniform(*x_range), rng.uniform(*y_range)
            if all(clear(len(placed), j, x - px, y - py) for j, (px, py) in enumerate(placed)):
                placed.append((float(x), float(y)))
            if len(placed) == len(standing) + count:
                new = placed[len(standing) :]
                return [Placement(px, py, float(rng.uniform(-CUBE_YAW, CUBE_YAW))) for px, py in new]


def rectangles(halves: Sequence[tuple[float, float]]) -> Clear:
    """Objects are clear of each other when their rectangles, half sizes (x, y) [m], do not overlap."""

    def clear(i: int, j: int, dx: float, dy: float) -> bool:
        return abs(dx) >= halves[i][0] + halves[j][0] or abs(dy) >= halves[i][1] + halves[j][1]

    return clear
