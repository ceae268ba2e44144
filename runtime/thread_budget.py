"""How many cores each policy may compute on: a fixed share each, so that what one takes is known."""

from __future__ import annotations

from dataclasses import dataclass

from memrt.runtime.errors import MemrtError

# Beyond it the products of a π0.5 expert step (50 rows) are too small to be shared out at a gain.
MOST_LOW_LEVEL_THREADS = 8


@dataclass(frozen=True, slots=True)
class ThreadBudget:
    """Computing threads of each policy's engines on the CPU; a GPU's engines take none."""

    low_level: int = 1
    high_level: int = 1

    def __str__(self) -> str:
        return f"{self.low_level},{self.high_level}"

    @classmethod
    def of_cores(cls, cores: int) -> ThreadBudget:
        """The default in real time: the low level may use every core, the high level half of them.

        The high level stands back wherever they meet (`memrt.runtime.background`), and the other half of the cores it
        never touches. `memrt bench lowlevel` shows on a given computer what this costs the low level, and what other
        shares would.
        """
        return cls(min(cores, MOST_LOW_LEVEL_THREADS), max(1, cores // 2))

    @classmethod
    def parse(cls, text: str) -> ThreadBudget:
        """From "2,1" (low level, high level) or "2" (both). Raises MemrtError for anything else."""
        try:
            counts = [int(part) for part in text.split(",")]
        except ValueError:
            counts = []
        if len(counts) not in (1, 2) or min(counts) < 1:
            raise MemrtError(
                "--threads",
                expected="the low level's threads and the high level's, e.g. 2,1, or one number for both",
                found=repr(text),
                fix="leave it out for this computer's default",
            )
        return cls(counts[0], counts[-1])
