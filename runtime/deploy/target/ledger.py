"""What was installed when and what became of it. Pure values: each function returns the ledger after one event.

Only one thing may be under way, a trial: the switch to a bundle that has yet to show that it is healthy. While the
ledger names a trial, nothing is decided, and whoever finds it without its flash goes back to where it began.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import msgspec

from memrt.runtime.deploy.identity import BundleId
from memrt.runtime.errors import MemrtError
from memrt.runtime.strict_config import Natural, convert

HISTORY = 3  # bundles that were found good, the latest last; only these are kept
ENTRIES = 64  # remembered bundles, installed or not
# new: never tried, or the trial was cut short; good: kept; bad: its trial failed, or it failed later;
# withdrawn: somebody went back from it.
Verdict = Literal["new", "good", "bad", "withdrawn"]


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One bundle. `digest`: SHA-256 of its manifest; `key`: who signed it, empty for nobody; `installed`: UTC date.

    `runtime`: the memrt it was last found good with; `reason`: why it is bad or withdrawn.
    """

    name: str
    version: Natural
    digest: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    key: str = ""
    installed: str
    verdict: Verdict = "new"
    reason: str = ""
    runtime: str | None = None

    @property
    def id(self) -> BundleId:
        """What it is called."""
        return BundleId(self.name, self.version, self.digest)


class Trial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A switch that is not decided: from `back` (None: there was no bundle) to `bundle`, and likewise the runtime."""

    bundle: str
    back: str | None
    runtime: str | None = None
    runtime_back: str | None = None


class Ledger(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of `ledger.json`. `highest`: the highest version of each policy that was ever found good."""

    schema_version: Literal[1] = 1
    entries: dict[str, Entry] = {}
    highest: dict[str, int] = {}
    history: tuple[str, ...] = ()
    trial: Trial | None = None

    def previous(self, current: str | None) -> str | None:
        """The bundle that a rollback from `current` runs: the last other one that was found good."""
        return next((folder for folder in reversed(self.history) if folder != current), None)


def encode(ledger: Ledger) -> bytes:
    """As it is written: equal ledgers, equal bytes."""
    values: dict[str, Any] = msgspec.to_builtins(ledger)
    return (json.dumps(values, sort_keys=True, indent=2, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")


def decode(content: bytes | None, source: str) -> Ledger:
    """The ledger; an empty one for None. Raises MemrtError when it is malformed."""
    if content is None:
        return Ledger()
    try:
        values = msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise _malformed(source, error) from error
    if not isinstance(values, dict):
        raise _malformed(source, f"a {type(values).__name__}")
    return convert(values, Ledger, source)


def check_version(ledger: Ledger, bundle: BundleId) -> None:
    """Raises MemrtError for a version lower than one that was good, and for another bundle of that same version."""
    highest = ledger.highest.get(bundle.name, 0)
    same = [entry for entry in ledger.entries.values() if (entry.name, entry.version) == (bundle.name, bundle.version)]
    other = [entry for entry in same if entry.verdict in {"good", "withdrawn"} and entry.digest != bundle.digest]
    if bundle.version < highest or (bundle.version == highest and other):
        raise MemrtError(
            f"bundle `{bundle.name}` version {bundle.version}",
            expected=f"a version above {highest}, which ran on this computer",
            found="a downgrade" if bundle.version < highest else "another bundle of the same version",
            fix="sign it with a higher --version; to undo a flash use `memrt flash HOST --rollback`",
        )


def began(ledger: Ledger, entry: Entry, back: str | None, runtime: str | None, runtime_back: str | None) -> Ledger:
    """A switch to `entry` begins. A known bundle keeps its date; what was bad is new again."""
    folder = entry.id.folder
    known = ledger.entries.get(folder)
    if known is not None:
        verdict: Verdict = "good" if known.verdict == "good" else "new"
        entry = msgspec.structs.replace(known, key=entry.key, verdict=verdict, reason="")
    entries = _bounded(ledger, {**ledger.entries, folder: entry}, keep={folder, back})
    trial = Trial(bundle=folder, back=back, runtime=runtime, runtime_back=runtime_back)
    return msgspec.structs.replace(ledger, entries=entries, trial=trial)


def kept(ledger: Ledger) -> Ledger:
    """The trial's bundle is healthy and stays."""
    trial = _trial(ledger)
    entry = ledger.entries[trial.bundle]
    good = msgspec.structs.replace(entry, verdict="good", reason="", runtime=trial.runtime)
    history = (*(folder for folder in ledger.history if folder != trial.bundle), trial.bundle)[-HISTORY:]
    return msgspec.structs.replace(
        ledger,
        entries={**ledger.entries, trial.bundle: good},
        highest={**ledger.highest, entry.name: max(entry.version, ledger.highest.get(entry.name, 0))},
        history=history,
        trial=None,
    )


def undone(ledger: Ledger, reason: str, *, bad: bool) -> Ledger:
    """The trial is over and its bundle does not stay: it is `bad`, or was only cut short.

    A bundle that was good before, and was tried with another runtime, stays good.
    """
    trial = _trial(ledger)
    entry = ledger.entries[trial.bundle]
    if entry.verdict != "good":
        entry = msgspec.structs.replace(entry, verdict="bad" if bad else "new", reason=reason)
    return msgspec.structs.replace(ledger, entries={**ledger.entries, trial.bundle: entry}, trial=None)


def withdrawn(ledger: Ledger, folder: str, reason: str, *, bad: bool) -> Ledger:
    """Somebody, or the service that saw it fail, went back from `folder`: no later rollback leads to it."""
    entries = ledger.entries
    if (entry := entries.get(folder)) is not None:
        verdict: Verdict = "bad" if bad else "withdrawn"
        entries = {**entries, folder: msgspec.structs.replace(entry, verdict=verdict, reason=reason)}
    return msgspec.structs.replace(
        ledger, entries=entries, history=tuple(other for other in ledger.history if other != folder)
    )


def _trial(ledger: Ledger) -> Trial:
    if ledger.trial is None:
        raise MemrtError("ledger", expected="a switch that is not decided", found="none", fix="flash the bundle again")
    return ledger.trial


def _bounded(ledger: Ledger, entries: dict[str, Entry], keep: set[str | None]) -> dict[str, Entry]:
    """At most ENTRIES: the oldest go first, never one that a rollback may need."""
    needed = keep | set(ledger.history)
    old = sorted((folder for folder in entries if folder not in needed), key=lambda folder: entries[folder].installed)
    dropped = set(old[: max(0, len(entries) - ENTRIES)])
    return {folder: entry for folder, entry in entries.items() if folder not in dropped}


def _malformed(source: str, found: object) -> MemrtError:
    return MemrtError(
        f"ledger {source}",
        expected="a JSON object",
        found=found,
        fix="move it away: the current bundle keeps running, only the history is lost",
    )
