"""Whether everybody gets on: what each of the loop's parts does since when, or when it means to look again."""

from __future__ import annotations

import threading

from memrt.runtime.clock import NS_PER_S

SUPERVISOR, CAMERAS = "supervisor", "cameras"  # beside the workers, which are called as their threads


class Progress:
    """One account for all threads; every method may be called from any of them. Times are the caller's clock's [ns].

    A part that is `busy` is stuck once that has taken longer than is allowed; one that `rests` until a time is stuck
    that long after it. A part that has nothing to do is forgotten, and never stuck.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[str, int] = {}

    def busy(self, part: str, now_ns: int) -> None:
        """`part` begins with something at `now_ns`."""
        with self._lock:
            self._since[part] = now_ns

    def rests(self, part: str, until_ns: int) -> None:
        """`part` is done, and is heard of again by `until_ns`."""
        self.busy(part, until_ns)

    def forget(self, *parts: str) -> None:
        """Nothing is expected of these parts any more."""
        with self._lock:
            for part in parts:
                self._since.pop(part, None)

    def stuck(self, now_ns: int, allowed_ns: int) -> str:
        """Who has not been heard of for longer than `allowed_ns` after it should have been, and how long; or ""."""
        with self._lock:
            late = {part: now_ns - since_ns for part, since_ns in self._since.items() if now_ns - since_ns > allowed_ns}
        return ", ".join(f"{part} for {late_ns / NS_PER_S:.1f} s" for part, late_ns in late.items())
