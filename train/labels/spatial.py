"""Writes the spatial memories that the high level is trained to produce, from what was in sight until a call.

The compressed-memory report asks a large model that sees the images (appendix A.1.3); here the recorded descriptions
of the scene stand in for them. Its rules are kept: only what matters to the goal, counts kept, an occluded object's
place kept, no actions and no future, no place that was not seen, under 70 words, ASCII. Grounded memories carry
coordinates; simple ones say the part of the image, as the report's do.

A description leaves out what is covered, swallowed or above the picture, but not what the arm happens to hide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from memrt.runtime.errors import MemrtError
from memrt.runtime.memory.coordinates import without_coordinates
from memrt.train.labels.scene_text import read_scene
from memrt.train.labels.spatial_hidden import CoveredCubes, HighlightedCubes
from memrt.train.labels.spatial_layouts import BinContents, CubeAndSides, CubeAndTarget, TravellingCube
from memrt.train.labels.wording import SpatialNotes, Style

INITIAL_SPATIAL_MEMORY = "No observations yet."  # SPECS 1.1, the report's released code
SPATIAL_WORD_LIMIT = 70  # appendix A.1.3: "under"

_OF_GOAL: tuple[Callable[[str], SpatialNotes | None], ...] = (
    BinContents.of_goal,
    CubeAndTarget.of_goal,
    CubeAndSides.of_goal,
    TravellingCube.of_goal,
    CoveredCubes.of_goal,
    HighlightedCubes.of_goal,
)


def spatial_memories(goal: str, scenes: Iterable[str], style: Style) -> list[str]:
    """The memory after each of an episode's recorded descriptions, which begin with the episode's first.

    They have to be close enough to follow containers that swap places: 0.2 s is, 0.4 s is not always. Raises MemrtError
    for a goal of no known task, and for episodes without descriptions.
    """
    notes = _nothing_seen(goal)
    memories = []
    for scene in scenes:
        if not scene:
            raise MemrtError(
                "spatial memory labels by rule",
                expected="a description of the scene with every sample",
                found="none, as with episodes recorded elsewhere",
                fix="have them worded from the images: memrt train sft --generator endpoint",
            )
        notes = notes.see(read_scene(scene))
        memories.append(notes.text(grounded=style == "grounded") or INITIAL_SPATIAL_MEMORY)
    return memories


def can_describe(goal: str) -> bool:
    """Whether there are spatial memories by rule for this goal."""
    return _notes_of(goal) is not None


def _nothing_seen(goal: str) -> SpatialNotes:
    notes = _notes_of(goal)
    if notes is None:
        raise MemrtError(
            "no spatial memory labels for this goal",
            expected="a goal in the phrasing of sim's tasks",
            found=repr(goal),
            fix="add the task's phrasing to train/labels/, or use memrt train sft --generator endpoint",
        )
    return notes


def _notes_of(goal: str) -> SpatialNotes | None:
    words = without_coordinates(goal)
    return next((notes for of_goal in _OF_GOAL if (notes := of_goal(words)) is not None), None)
