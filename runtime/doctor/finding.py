"""What the doctor says about one thing: fine or not, what was found, what it costs, what mends it."""

from __future__ import annotations

from typing import Literal

import msgspec

# fine: as it should be, or of no consequence here. unknown: this computer does not say. warning: works, at a cost.
# error: something that was asked for does not work.
Status = Literal["fine", "unknown", "warning", "error"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """`about` names the thing and never changes, `found` is what was seen.

    `cost` and `mend` are empty unless the status is warning or error. `mend` is pasted into a shell as it is: commands,
    and comments (`# …`) for what no command does.
    """

    about: str
    status: Status
    found: str
    cost: str = ""
    mend: tuple[str, ...] = ()


def fine(about: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(about=about, status="fine", found=found)


def unknown(about: str, found: str) -> Finding:
    """Could not be looked at; `found` says why."""
    return Finding(about=about, status="unknown", found=found)


def warning(about: str, found: str, cost: str, *mend: str) -> Finding:
    """Works, at a cost."""
    return Finding(about=about, status="warning", found=found, cost=cost, mend=mend)


def error(about: str, found: str, cost: str, *mend: str) -> Finding:
    """Does not work."""
    return Finding(about=about, status="error", found=found, cost=cost, mend=mend)


def judged(wrong: bool, about: str, found: str, cost: str, *mend: str) -> Finding:
    """`error` when it is wrong for what was asked for, else `warning`."""
    return Finding(about=about, status="error" if wrong else "warning", found=found, cost=cost, mend=mend)


def at_boot(name: str, path: str, value: str) -> tuple[str, str]:
    """Commands that write `value` to a kernel file (`*` allowed) now and at every start (tmpfiles.d(5), `w`)."""
    file = f"/etc/tmpfiles.d/memrt-{name}.conf"
    return f"echo 'w {path} - - - - {value}' | sudo tee {file}", f"sudo systemd-tmpfiles --create {file}"
