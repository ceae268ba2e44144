"""Memory labels: what each kind of memory should hold at each recorded call."""

from __future__ import annotations

from memrt.train.labels.action import completed, label, label_pair
from memrt.train.labels.spatial import INITIAL_SPATIAL_MEMORY, SPATIAL_WORD_LIMIT, spatial_memories
from memrt.train.labels.wording import INITIAL_MEMORY, WORD_LIMIT, Style

__all__ = [
    "INITIAL_MEMORY",
    "INITIAL_SPATIAL_MEMORY",
    "SPATIAL_WORD_LIMIT",
    "WORD_LIMIT",
    "Style",
    "completed",
    "label",
    "label_pair",
    "spatial_memories",
]
