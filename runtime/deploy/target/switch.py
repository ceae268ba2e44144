"""Changes which bundle is current, so that a crash at any point leaves the old or the new one, whole.

    1. the ledger names the trial          (until here: nothing has happened)
    2. the link `current` moves, one rename (a crash from here on: `recover` moves it back)
    3. the bundle starts and is examined
    4. the ledger says good: the decision, one rename; or the link moves back and the ledger says why

A new bundle therefore stays only if step 4 is on the disk. `recover` is what the service calls before it starts, and
every command of the target: a flash that was cut short is undone by whoever comes next. All of it needs the lock
(`lock.py`); a trial whose lock is held is alive, not cut short.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from memrt.runtime.deploy.target import ledger as events
from memrt.runtime.deploy.target.files import Disk, Files, put_file, put_link
from memrt.runtime.deploy.target.layout import Layout
from memrt.runtime.deploy.target.ledger import Entry, Ledger, Trial, decode, encode
from memrt.runtime.errors import MemrtError


@dataclass(frozen=True, slots=True)
class Switch:
    """The links and the ledger of one computer."""

    layout: Layout
    files: Files = field(default_factory=Disk)

    def ledger(self) -> Ledger:
        """As it is on the disk. Raises MemrtError when it is malformed."""
        return decode(self.files.read(self.layout.ledger), str(self.layout.ledger))

    def current(self) -> str | None:
        """The folder of the bundle that runs; None before the first flash."""
        return self._linked(self.layout.current)

    def runtime(self) -> str | None:
        """The folder of the memrt that runs; None when it was installed by other means."""
        return self._linked(self.layout.runtime)

    def announce(self, entry: Entry, runtime: str | None = None) -> Trial:
        """Step 1: the ledger says what is about to happen to the bundle `entry`, which lies in its folder.

        `runtime` is the folder of another memrt to run it with. Raises MemrtError for a downgrade, and when a trial
        before it was not recovered.
        """
        ledger = self.ledger()
        if ledger.trial is not None:
            raise MemrtError("switch", expected="no trial under way", found=ledger.trial.bundle, fix="recover first")
        events.check_version(ledger, entry.id)
        here = self.runtime()
        after = events.began(ledger, entry, self.current(), runtime or here, here)
        self._write(after)
        trial = after.trial
        assert trial is not None
        return trial

    def move(self, trial: Trial) -> None:
        """Step 2: the links."""
        self._point(trial.bundle, trial.runtime)

    def keep(self) -> None:
        """Step 4 of a healthy bundle: from here on it stays."""
        after = events.kept(self.ledger())
        self._write(after)
        self._show_previous(after)

    def undo(self, reason: str, *, bad: bool) -> Trial | None:
        """Step 4 of any other: back to where the trial began. None when none is under way."""
        ledger = self.ledger()
        if (trial := ledger.trial) is None:
            return None
        self._point(trial.back, trial.runtime_back)
        after = events.undone(ledger, reason, bad=bad)
        self._write(after)
        self._show_previous(after)
        return trial

    def recover(self) -> Trial | None:
        """Undo a trial that nobody decides any more, and finish what a crash left of one that was; None: nothing."""
        undone = self.undo("the flash was cut short", bad=False)
        if undone is None:
            self._show_previous(self.ledger())
        return undone

    def roll_back(self, reason: str, *, to: str | None = None, bad: bool = False) -> str:
        """Go back to the bundle before, or `to`; returns its folder. `bad`: the current one failed by itself.

        Raises MemrtError when there is none that was found good.
        """
        ledger, current = self.ledger(), self.current()
        goal = to or ledger.previous(current)
        good = [folder for folder in ledger.history if folder != current]
        if goal is None or goal not in good:
            raise MemrtError(
                "rollback",
                expected="a bundle that was found good on this computer before",
                found=f"`{goal}`" if goal else "no other",
                fix=f"choose one of {', '.join(good)}" if good else "flash a bundle that works",
            )
        entry = ledger.entries[goal]
        runtime = entry.runtime if entry.runtime and (self.layout.runtimes / entry.runtime).is_dir() else None
        self._point(goal, runtime or self.runtime())
        after = events.withdrawn(ledger, current, reason, bad=bad) if current else ledger
        self._write(after)
        self._show_previous(after)
        return goal

    def _point(self, bundle: str | None, runtime: str | None) -> None:
        if runtime != self.runtime():
            put_link(self.files, self.layout.runtime, runtime)
        elif runtime is not None:
            self.files.sync_folder(self.layout.runtimes)
        put_link(self.files, self.layout.current, None if bundle is None else os.path.join("bundles", bundle))

    def _show_previous(self, ledger: Ledger) -> None:
        folder = ledger.previous(self.current())
        put_link(self.files, self.layout.previous, None if folder is None else os.path.join("bundles", folder))

    def _write(self, ledger: Ledger) -> None:
        put_file(self.files, self.layout.ledger, encode(ledger))

    def _linked(self, link: Path) -> str | None:
        target = self.files.target(link)
        return None if target is None else Path(target).name
