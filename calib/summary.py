"""What a calibration set holds, in figures: samples by role, episodes, cameras, and the ranges its samples cover."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from memrt.calib.calibration_set import ROLES, CalibrationSet, HighLevelSample, LowLevelSample
from memrt.runtime.types import ARM_JOINTS, PROPRIOCEPTION_DIM

GRIPPER = "gripper opening (0..1)"


def summarise(recorded: CalibrationSet) -> dict[str, Any]:
    """Plain JSON: name, seed, sha256, splits, samples, episodes, cameras, ranges, outside, subgoals.

    `episodes`: per role, how many were drawn from, the first and the last. `cameras`: per level and camera, images and
    sizes. `ranges`: per value of proprioception and role, [lowest, highest]. `outside`: per value, the share (0..1) of
    gate samples beyond what the calibration samples cover: those are judged outside what was measured.
    """
    document, manifest = recorded.document, recorded.manifest()
    samples: list[LowLevelSample | HighLevelSample] = [*document.low_level, *document.high_level]
    episodes = {role: sorted({sample.episode for sample in samples if sample.role == role}) for role in ROLES}
    return {
        **{key: manifest[key] for key in ("name", "seed", "sha256", "splits")},
        "samples": {level: manifest[level] for level in ("low_level", "high_level")},
        "episodes": {
            role: {"count": len(found), "first": found[0] if found else None, "last": found[-1] if found else None}
            for role, found in episodes.items()
        },
        "cameras": _cameras(recorded),
        "ranges": {name: {role: _range(recorded, role, i) for role in ROLES} for i, name in enumerate(value_names())},
        "outside": {name: _outside(recorded, i) for i, name in enumerate(value_names())},
        "subgoals": {
            "low_level": _counted([sample.subgoal_simple for sample in document.low_level]),
            "high_level": _counted([sample.simple.subgoal for sample in document.high_level]),
        },
    }


def value_names() -> tuple[str, ...]:
    """The values of proprioception, with their units."""
    names = tuple(f"joint {i + 1} (rad)" for i in range(ARM_JOINTS))
    return (*names, GRIPPER)[:PROPRIOCEPTION_DIM]


def _cameras(recorded: CalibrationSet) -> dict[str, dict[str, Any]]:
    files: dict[str, list[str]] = {}
    for low in recorded.document.low_level:
        for camera, file in low.images.items():
            files.setdefault(f"low_level/{camera}", []).append(file)
    for high in recorded.document.high_level:
        files.setdefault("high_level", []).append(high.image)
    return {
        camera: {
            "images": len(names),
            "sizes": sorted(
                {f"{image.shape[1]}x{image.shape[0]}" for image in map(recorded.images.__getitem__, names)}
            ),
            "mean_level": round(float(np.mean([recorded.images[name].mean() for name in names])), 3),
        }
        for camera, names in sorted(files.items())
    }


def _range(recorded: CalibrationSet, role: Any, index: int) -> list[float] | None:
    values = [sample.proprioception[index] for sample in recorded.low_level(role)]
    return [min(values), max(values)] if values else None


def _outside(recorded: CalibrationSet, index: int) -> float | None:
    covered = _range(recorded, "calibration", index)
    values = [sample.proprioception[index] for sample in recorded.low_level("gate")]
    if covered is None or not values:
        return None
    return sum(not covered[0] <= value <= covered[1] for value in values) / len(values)


def _counted(texts: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(texts).items(), key=lambda item: (-item[1], item[0])))
