"""Feeds systemd's watchdog, but only while everybody gets on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from memrt.runtime.clock import NS_PER_S, Clock
from memrt.runtime.loop.progress import Progress
from memrt.runtime.service.notify import Notifier

LOOKS_PER_TIMEOUT = 4  # sd_watchdog_enabled(3) advises two; a busy computer may be late for one
ALONE_S = 2.0  # between looks where nobody has set a watchdog
STUCK = 70  # exit status where no service manager ends the process: sysexits(3)'s internal error


class WatchdogThread:
    """A context manager. Looks every quarter of the watchdog's time, in a thread that waits for nothing else.

    A thread of the process that is stuck stops the feeding, and so does a process that is stuck as a whole. Without a
    service manager's watchdog the process ends itself, with status 70: then a container is started again. Either way
    the robot's node hears no heartbeat and brakes the arm by itself.
    """

    def __init__(
        self,
        progress: Progress,
        notifier: Notifier,
        clock: Clock,
        allowed_s: float,
        say: Callable[[str], None],
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._progress, self._notifier, self._clock = progress, notifier, clock
        self._allowed_ns = round(allowed_s * NS_PER_S)
        self._say, self._end = say, end
        self._quit = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def look(self) -> bool:
        """Feed the watchdog, or say who is stuck and do not. Whether all get on."""
        stuck = self._progress.stuck(self._clock.now_ns(), self._allowed_ns)
        if not stuck:
            self._notifier.alive()
            return True
        words = f"stuck: {stuck}"
        self._say(words)
        self._notifier.status(words)
        if self._notifier.watchdog_s is None:
            self._end(STUCK)
        self._notifier.stuck()
        return False

    def __enter__(self) -> WatchdogThread:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._quit.set()
        self._thread.join()

    def _run(self) -> None:
        period_s = ALONE_S if self._notifier.watchdog_s is None else self._notifier.watchdog_s / LOOKS_PER_TIMEOUT
        while self.look() and not self._quit.wait(period_s):
            pass
