"""When to leave a server alone that does not answer: a circuit breaker, a pure function of the times handed in.

After `misses` questions in a row without an answer it is left alone for a pause. Then one question is tried: an answer
ends it all, none makes the next pause twice as long, up to a bound.
"""

from __future__ import annotations

from typing import Literal

from memrt.runtime.clock import NS_PER_S

FIRST_PAUSE_NS = NS_PER_S

Choice = Literal["ask", "try", "leave"]


class CircuitBreaker:
    """`choose` before a question; `answered` or `missed` after each that was asked or tried. Times in nanoseconds."""

    def __init__(self, misses: int, longest_pause_ns: int) -> None:
        """`misses` ≥ 1 in a row begin a pause; the first lasts a second, or `longest_pause_ns` where that is less."""
        self._limit, self._longest_ns = misses, longest_pause_ns
        self._missed = 0  # in a row
        self._pause_ns = 0  # the newest, 0 before the first since an answer
        self._until_ns = 0
        self._trying = False

    @property
    def paused(self) -> bool:
        """Whether the server is being left alone, or tried after a pause."""
        return self._pause_ns > 0

    def choose(self, now_ns: int) -> Choice:
        """Ask, leave the server alone, or `try` one question. While that is under way, the others leave it alone."""
        if not self.paused:
            return "ask"
        if self._trying or now_ns < self._until_ns:
            return "leave"
        self._trying = True
        return "try"

    def answered(self) -> None:
        """The server is well."""
        self._missed = self._pause_ns = 0
        self._trying = False

    def missed(self, now_ns: int) -> None:
        """No answer came, or none that is of use."""
        self._missed += 1
        self._trying = False
        if self._missed >= self._limit:
            self._pause_ns = min(2 * self._pause_ns or FIRST_PAUSE_NS, self._longest_ns)
            self._until_ns = now_ns + self._pause_ns

    def withdrawn(self) -> None:
        """The question was given up for a reason of our own: it says nothing about the server."""
        self._trying = False
