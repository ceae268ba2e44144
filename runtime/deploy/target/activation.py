"""Switches to a bundle, starts it and has it examined; keeps it only on the workstation's word, else goes back.

Whatever ends the attempt (an unhealthy bundle, a cut connection, Ctrl-C on the workstation, a bug, a killed process)
ends it on the old bundle.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from memrt.runtime.deploy.frames import CutConnectionError, seconds_since
from memrt.runtime.deploy.messages import Healthy
from memrt.runtime.deploy.target.attended import Attended
from memrt.runtime.deploy.target.dead_man import dead_man
from memrt.runtime.deploy.target.ledger import Entry, Trial
from memrt.runtime.deploy.target.service import Service, Tell
from memrt.runtime.deploy.target.switch import Switch
from memrt.runtime.errors import MemrtError

_UNATTENDED = Attended()  # going back asks nobody's leave


@dataclass(frozen=True, slots=True)
class Activation:
    """What it needs. `tell` gets a line of progress."""

    switch: Switch
    service: Service
    attended: Attended
    tell: Tell

    def run(self, entry: Entry, runtime: str | None, confirm: Callable[[Healthy], None]) -> None:
        """Bring `entry` to run. `confirm` tells the workstation that it is healthy, and returns once that wants it.

        Raises MemrtError for a bundle that is not healthy, CutConnectionError when nobody waits for it any more, and
        what `confirm` raises; the old bundle runs again then.
        """
        with dead_man(self._recover):
            try:
                began_ns = time.monotonic_ns()
                trial = self.switch.announce(entry, runtime)
                ledger_ms, began_ns = seconds_since(began_ns) * 1e3, time.monotonic_ns()
                self.switch.move(trial)
                switch_ms = seconds_since(began_ns) * 1e3
                self.tell(f"switched in {switch_ms:.1f} ms, after {ledger_ms:.1f} ms for the ledger")
                began_ns = time.monotonic_ns()
                health = self._start(entry)
                confirm(
                    Healthy(
                        health,
                        switch_ms=round(switch_ms, 2),
                        start_s=round(seconds_since(began_ns), 2),
                        ledger_ms=round(ledger_ms, 2),
                    )
                )
                self.switch.keep()
            except BaseException as error:
                with _uninterrupted():
                    bad = isinstance(error, MemrtError)
                    self._go_back(self.switch.undo(str(error) or type(error).__name__, bad=bad))
                raise

    def _start(self, entry: Entry) -> dict[str, Any]:
        if not self.service.installed(self.attended):
            self.tell("no service here: nothing was started. Set one up with `memrt service install`")
            return {"healthy": None, "checks": []}
        self.service.restart(self.attended, self.tell)
        self.tell("started, disarmed")
        return self.service.await_health(self.switch.layout.bundle(entry.id.folder), self.attended)

    def _recover(self) -> None:
        self._go_back(self.switch.recover())

    def _go_back(self, trial: Trial | None) -> None:
        """Let the service run what is current again; nothing to do when nothing was undone."""
        if trial is None or not self.service.installed(_UNATTENDED):
            return
        if trial.back is None:
            self.service.stop(_UNATTENDED)
        else:
            self.service.restart(_UNATTENDED, _quietly(self.tell))


def _quietly(tell: Tell) -> Tell:
    """`tell` that takes no harm from a workstation that has gone."""

    def say(line: str) -> None:
        with contextlib.suppress(CutConnectionError):
            tell(line)

    return say


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
