"""How a call ends without an answer: it is not wanted any more, or nobody answered in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from memrt.runtime.errors import MemrtError

Cancel = Callable[[], bool]


class Cancelled(Exception):  # noqa: N818  # nothing is wrong: the caller asked for it
    """The call was given up because its `cancelled` said so. What it had computed is kept for the next call."""


class Unanswered(MemrtError):  # noqa: N818  # the loop goes on: the last subgoal stands, and its time runs
    """Nobody answered in time: the VLM is served elsewhere, and there is none on board.

    Memory is as it was. `counts` are what a reader of the run should know of, by name.
    """

    def __init__(self, why: str, counts: Mapping[str, int]) -> None:
        super().__init__(
            "high level served elsewhere",
            expected="an answer before its deadline",
            found=why,
            fix="bring it back, raise `remote.deadline_s`, or let a policy `on_board` answer in its place",
        )
        self.counts = counts

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self.found), dict(self.counts))


def check(cancelled: Cancel | None) -> None:
    """Raise Cancelled when the call is not wanted any more."""
    if cancelled is not None and cancelled():
        raise Cancelled
