"""The words that all memory labels share: limits, counts, coordinates, and the refusal of a phrase nobody knows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from memrt.runtime.errors import MemrtError
from memrt.train.labels.scene_text import SeenScene

if TYPE_CHECKING:
    from typing_extensions import Self

Style = Literal["simple", "grounded"]
INITIAL_MEMORY = "No actions had been completed yet."  # report, appendix A.1 and its released code
WORD_LIMIT: dict[Style, int] = {"simple": 50, "grounded": 90}  # appendix A.1.1 and A.1.2: "under" these

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_TIMES = ("once", "twice", *(f"{number} times" for number in NUMBERS[2:]))


class Progress(ABC):
    """What has been completed of a task, learnt subgoal by subgoal; immutable."""

    @abstractmethod
    def begin(self, subgoal: str) -> Self:
        """Correct by what `subgoal` presupposes: what came before it may have failed, or no call may have seen it."""

    @abstractmethod
    def finish(self, subgoal: str) -> Self:
        """`subgoal`, just begun, was completed."""

    @abstractmethod
    def text(self, *, grounded: bool) -> str:
        """The memory, "" while nothing was completed."""

    def unseen(self) -> Self:
        """A subgoal was completed between two calls, so that none saw it; most are made up for by the one after."""
        return self


class SpatialNotes(ABC):
    """What of a scene matters to a goal, learnt scene by scene; immutable."""

    @abstractmethod
    def see(self, scene: SeenScene) -> Self:
        """The next look."""

    @abstractmethod
    def text(self, *, grounded: bool) -> str:
        """The memory, "" while there is nothing to note."""


def where(group: str) -> str:
    """A pattern for the coordinates behind an object, as the group of this name; simple subgoals have none."""
    return rf"(?: (?P<{group}><\d+, \d+>))?"


def named(name: str, coordinate: str, *, grounded: bool) -> str:
    """An object with its coordinates, where they are known and wanted."""
    return f"{name} {coordinate}" if grounded and coordinate else name


def times(count: int) -> str:
    """1 is `once`."""
    return _TIMES[count - 1]


def counted(count: int, noun: str) -> str:
    """`one red cube`, `two red cubes`."""
    return f"{NUMBERS[count - 1]} {noun}{'s' * (count > 1)}"


def listed(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def rank(ordinal: str, subgoal: str, phrases: str) -> int:
    """1 for `first`. Raises MemrtError for a word that is no ordinal."""
    if ordinal not in ORDINALS:
        raise unknown_subgoal(subgoal, phrases)
    return ORDINALS.index(ordinal) + 1


def unknown_subgoal(subgoal: str, phrases: str) -> MemrtError:
    """The refusal of a subgoal outside the task's `phrases`."""
    return MemrtError(
        "no memory label for this subgoal",
        expected=phrases,
        found=repr(subgoal),
        fix="record it in the phrasing of sim's tasks, or add the phrasing to train/labels/",
    )
