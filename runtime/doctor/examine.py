"""All domains over one snapshot, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from memrt.runtime.doctor import (
    bundle,
    cameras,
    clock,
    disk,
    engines,
    gpu,
    kernel,
    lateness,
    memory,
    network,
    processor,
    rendering,
    rights,
    system,
)
from memrt.runtime.doctor.finding import Finding, Status
from memrt.runtime.doctor.snapshot import Snapshot

# In the order in which a reader should mend.
DOMAINS: dict[str, Callable[[Snapshot], list[Finding]]] = {
    "kernel": kernel.examine,
    "rights": rights.examine,
    "processor": processor.examine,
    "memory": memory.examine,
    "clock": clock.examine,
    "lateness": lateness.examine,
    "gpu": gpu.examine,
    "engines": engines.examine,
    "bundle": bundle.examine,
    "cameras": cameras.examine,
    "network": network.examine,
    "disk": disk.examine,
    "rendering": rendering.examine,
}
_PARTS = (system, kernel, rights, processor, memory, clock, gpu, engines, bundle, cameras, network, rendering)
# What a snapshot must hold for them: files (patterns), links, device files, tools, Python packages.
FILES = tuple(dict.fromkeys(pattern for part in _PARTS for pattern in getattr(part, "FILES", ())))
LINKS = cameras.LINKS
DEVICES = cameras.DEVICES
COMMANDS = tuple(dict.fromkeys(command for part in _PARTS for command in getattr(part, "COMMANDS", ())))
PACKAGES = (*engines.PACKAGES, *cameras.PACKAGES)

NOTHING_FOUND, WARNINGS, ERRORS = 0, 1, 3  # exit statuses; 2 is a refusal, as for every command

Report = dict[str, list[Finding]]


def examine(snapshot: Snapshot) -> Report:
    """All findings by domain, the fine ones too."""
    return {name: domain(snapshot) for name, domain in DOMAINS.items()}


def count(report: Report, status: Status) -> int:
    """How many findings have the status."""
    return sum(finding.status == status for findings in report.values() for finding in findings)


def exit_status(report: Report) -> int:
    """0: nothing found. 1: it works, at a cost. 3: something that was asked for does not work."""
    return ERRORS if count(report, "error") else WARNINGS if count(report, "warning") else NOTHING_FOUND


def shown(report: Report, *, everything: bool) -> Report:
    """Without what is fine and what could not be looked at, unless `everything` is wanted."""
    wanted = ("warning", "error", "unknown", "fine") if everything else ("warning", "error")
    kept = {name: [one for one in found if one.status in wanted] for name, found in report.items()}
    return {name: found for name, found in kept.items() if found}


def as_document(snapshot: Snapshot, report: Report, *, everything: bool) -> dict[str, Any]:
    """Plain JSON values."""
    flat = [
        {"domain": domain, **msgspec.to_builtins(finding)}
        for domain, findings in shown(report, everything=everything).items()
        for finding in findings
    ]
    return {
        "computer": system.describe(snapshot),
        "exit_status": exit_status(report),
        "errors": count(report, "error"),
        "warnings": count(report, "warning"),
        "unknown": count(report, "unknown"),
        "fine": count(report, "fine"),
        "findings": flat,
    }
