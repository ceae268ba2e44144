"""What an operator sees during `memrt run`, on stderr: a live panel on a terminal, else one line per new subgoal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live

from memrt.runtime.live_status import render_status
from memrt.runtime.loop.realtime import LoopStatus

REFRESH_S = 0.2  # a person reads no faster, and drawing costs the policies time


class Display:
    """A context manager. `quiet` prints nothing unless stderr is a terminal."""

    def __init__(self, quiet: bool, keys: bool = False) -> None:
        self._console = Console(stderr=True)
        self._keys = keys
        self._plain = not self._console.is_terminal
        self._quiet = quiet and self._plain
        self._live: Live | None = None
        self._shown = ("", "")
        self._next_s = 0.0
        self.entry: str | None = None  # a new goal being typed

    def show(self, status: LoopStatus, robot: Mapping[str, Any]) -> None:
        """Refresh the panel, at most five times a second; without a terminal, print what has changed."""
        if self._live is None:
            self._print_changes(status)
        elif time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + REFRESH_S
            self._live.update(render_status(status, robot, self._keys, self.entry), refresh=True)

    def note(self, text: str) -> None:
        """Say something above the panel."""
        if not self._quiet:
            self._console.print(text, style="yellow", markup=False, highlight=False)

    def __enter__(self) -> Display:
        if not self._plain:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def _print_changes(self, status: LoopStatus) -> None:
        now = (status.subgoal.text if status.subgoal else "", status.hold_reason)
        if now == self._shown or self._quiet:
            return
        self._shown = now
        subgoal, hold = now
        self._console.print(f"{status.elapsed_s:6.1f} s  {hold or subgoal}", markup=False, highlight=False)


def note(text: str) -> None:
    """Say one thing on stderr, outside any display."""
    Console(stderr=True).print(text, style="yellow", markup=False, highlight=False)
