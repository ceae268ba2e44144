"""Memory labels: what each kind of memory should hold at each recorded call."""

from __future__ import annotations

from memrt.train.labels.action import completed, label, label_pair
from memrt.train.labels.wording import INITIAL_MEMORY, WORD_LIMIT, Style

__all__ = ["INITIAL_MEMORY", "WORD_LIMIT", "Style", "completed", "label", "label_pair"]
