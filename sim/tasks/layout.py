"""Random but reproducible table layouts: objects apart enough for the open hand to come down between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from memrt.sim.scene import Placement, SceneLayout

WORKSPACE_X = (0.40, 0.64)  # [m], where every object can be reached with the hand pointing down
WORKSPACE_Y = (-0.24, 0.24)
SPACING = 0.105  # between centres [m]: half an open hand, a finger and half a cube
CUBE_YAW = 0.25  # [rad]; the fingers straighten a cube turned this little


def sample_layout(rng: np.random.Generator, colours: Sequence[str]) -> SceneLayout:
    """Place the cubes, the target and the button by rejection; restarts when the table is full."""
    while True:
        placed: list[tuple[float, float]] = []
        for _ in range(200):
            x, y = rng.uniform(*WORKSPACE_X), rng.uniform(*WORKSPACE_Y)
            if all(np.hypot(x - px, y - py) >= SPACING for px, py in placed):
                placed.append((float(x), float(y)))
            if len(placed) == len(colours) + 2:
                target, button, *cubes = (
                    Placement(px, py, float(rng.uniform(-CUBE_YAW, CUBE_YAW))) for px, py in placed
                )
                return SceneLayout(dict(zip(colours, cubes, strict=True)), target, button)
