"""Puts the service onto a computer with systemd: units, account, folders, settings."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from memrt.runtime.errors import MemrtError
from memrt.runtime.service.units import RUNS, RUNTIME, Units

UNIT_FOLDER = Path("etc/systemd/system")
ACCOUNT_FILE = Path("etc/sysusers.d/memrt.conf")
FOLDERS_FILE = Path("usr/lib/tmpfiles.d/memrt.conf")


@dataclass(frozen=True, slots=True)
class Installed:
    """The files that were written, and those that were there already and were left alone."""

    written: tuple[Path, ...]
    kept: tuple[Path, ...]


def write_files(units: Units, settings: str, root: Path = Path("/")) -> Installed:
    """Write everything below `root`; settings that are there already stay. Raises MemrtError where it is not allowed.

    Nothing of it takes effect before `activate`.
    """
    files = {UNIT_FOLDER / name: text for name, text in units.texts().items()}
    files |= {ACCOUNT_FILE: units.account(), FOLDERS_FILE: units.folders()}
    written, kept = [], []
    own = units.settings.relative_to("/")
    try:
        for relative, text in [*files.items(), (own, settings)]:
            path = root / relative
            if relative == own and path.exists():
                kept.append(path)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise MemrtError(
            f"installing the service below {root}",
            expected="permission to write there",
            found=error,
            fix="sudo memrt service install ...",
        ) from error
    return Installed(tuple(written), tuple(kept))


def activate(units: Units) -> None:
    """Make the account and the folders, let systemd read the units, and start them at every boot.

    Raises MemrtError with the first command's words that fails.
    """
    if shutil.which("systemctl") is None:
        raise MemrtError(
            "installing the service",
            expected="a computer with systemd",
            found="none",
            fix="use the container file (runtime/service/README.md), or start `memrt service run` yourself",
        )
    names = [name for name, text in units.texts().items() if "[Install]" in text]
    for command in (
        ["systemd-sysusers", f"/{ACCOUNT_FILE}"],
        ["systemd-tmpfiles", "--create", f"/{FOLDERS_FILE}"],
        ["systemctl", "daemon-reload"],
        ["systemctl", "enable", *names],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise MemrtError(
                f"`{' '.join(command)}`",
                expected="exit status 0",
                found=done.stderr.strip() or f"status {done.returncode}",
                fix="run `memrt service install` as root",
            )


def settings_text(robot: str, host: str | None, goal: str | None) -> str:
    """A `service.yaml` to begin with."""
    quoted = '"' + goal.replace("\\", "\\\\").replace('"', '\\"') + '"' if goal else ""
    return f"""\
# What `memrt service` runs (runtime/service/README.md). After a change: sudo systemctl restart {RUNTIME}
robot: {robot}
{f"host: {host}" if host else "# host: 172.16.0.2 # the robot's own address"}
{f"goal: {quoted}" if goal else "# goal: pick up the red cube # unless `memrt service arm --goal` says another"}
# record: {RUNS} # every run, while there is room on the disk
# speed: 0.3
# threads: 2,1
"""
