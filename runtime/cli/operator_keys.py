"""What an operator's keys do to a running loop."""

from __future__ import annotations

from memrt.runtime.cli.run_display import Display
from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.realtime import RealtimeLoop

ENTER, ESCAPE, BACKSPACE = ("\r", "\n"), "\x1b", ("\x7f", "\b")
MAX_GOAL_CHARACTERS = 400


class OperatorKeys:
    """Space stops, r resumes, h goes home, q quits, g asks for a new goal; y and n end the run as success or failure.

    c says that the current subgoal has succeeded, for a memory that only successes enter.
    The arm is stopped before a goal is typed, because then a space is a letter; it stays stopped until r.
    """

    def __init__(self, loop: RealtimeLoop, display: Display) -> None:
        self._loop, self._display = loop, display
        self._goal: str | None = None  # what was typed so far, None while nothing is

    def press(self, key: str) -> None:
        """Take one key, "" for none. A refusal is the operator's to read, not the end of the run."""
        if not key:
            return
        try:
            if self._goal is None:
                self._command(key)
            else:
                self._type(key, self._goal)
        except MemrtError as error:
            self._display.note(str(error))
        self._display.entry = self._goal

    def _command(self, key: str) -> None:
        if key == " ":
            self._loop.stop()
        elif key == "r":
            self._loop.resume()
        elif key == "h":
            self._loop.home()
        elif key == "q":
            self._loop.quit()
        elif key == "c":
            self._loop.confirm_subgoal()
            self._display.note("subgoal confirmed")
        elif key in ("y", "n"):
            self._loop.judge(success=key == "y")
        elif key == "g":
            self._loop.stop("waiting for a new goal")
            self._goal = ""

    def _type(self, key: str, goal: str) -> None:
        if key in ENTER:
            self._goal = None
            self._loop.set_goal(goal)
        elif key == ESCAPE:
            self._goal = None
        elif key in BACKSPACE:
            self._goal = goal[:-1]
        elif key.isprintable():
            self._goal = (goal + key)[:MAX_GOAL_CHARACTERS]
