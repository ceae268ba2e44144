"""What a policy thread does, one step at a time: a step decides, calls at most once, and says when to look again."""

from __future__ import annotations

from typing import Protocol

IDLE_NS = 50_000_000  # how often a held worker looks whether it may go on


class Worker(Protocol):
    """One thread's work."""

    def step(self) -> int:
        """Do what is due; return the time to look again, in nanoseconds."""
        ...
