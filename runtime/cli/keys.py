"""Single key presses of an operator, read without waiting; nothing is read when stdin is not a terminal."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from types import TracebackType
from typing import Any


class Keys:
    """A context manager: inside it keys arrive at once and unechoed; the terminal is restored on every way out."""

    def __init__(self) -> None:
        self.available = sys.stdin.isatty()
        self._before: list[Any] | None = None

    def pressed(self) -> str:
        """The next key pressed, or "" when there is none."""
        if self._before is None or not select.select([sys.stdin], [], [], 0)[0]:
            return ""
        return os.read(sys.stdin.fileno(), 1).decode(errors="replace")  # unbuffered: the next key stays for select

    def __enter__(self) -> Keys:
        if self.available:
            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)
            self._before = None
