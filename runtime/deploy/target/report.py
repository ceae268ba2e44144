"""What is installed here and what runs, as plain JSON values."""

from __future__ import annotations

from typing import Any

import msgspec

from memrt.runtime.deploy.target.layout import Layout
from memrt.runtime.deploy.target.lock import held
from memrt.runtime.deploy.target.service import Service
from memrt.runtime.deploy.target.settings import read_deploy_settings
from memrt.runtime.deploy.target.switch import Switch


def list_bundles(layout: Layout) -> dict[str, Any]:
    """Every bundle the ledger knows, the newest first; `installed` says whether its files are still here.

    Raises MemrtError for a malformed ledger.
    """
    switch = Switch(layout)
    ledger, current, here = switch.ledger(), switch.current(), set(layout.installed())
    previous = ledger.previous(current)
    bundles = []
    # The ledger grows at its end; two within one second are told apart by that alone.
    oldest_first = sorted(ledger.entries.items(), key=lambda item: item[1].installed)
    for folder, entry in reversed(oldest_first):
        place = "current" if folder == current else "previous" if folder == previous else ""
        bundles.append({**msgspec.to_builtins(entry), "bundle": folder, "place": place, "files_here": folder in here})
    return {"current": current, "previous": previous, "bundles": bundles}


def status_of(layout: Layout) -> dict[str, Any]:
    """What runs, and the service's own status; None where there is no service."""
    switch = Switch(layout)
    ledger, current = switch.ledger(), switch.current()
    entry = None if current is None else ledger.entries.get(current)
    return {
        "current": current,
        "verdict": None if entry is None else entry.verdict,
        "previous": ledger.previous(current),
        "runtime": switch.runtime(),
        "trial": None if ledger.trial is None else msgspec.to_builtins(ledger.trial),
        "flash": held(layout.lock),
        "service": Service(read_deploy_settings(layout)).status(),
    }
