"""Installs memrt itself on the robot's computer, from a wheel set: no internet, no compiler, no older memrt needed.

It gets a folder of its own, `/opt/memrt/VERSION-HASH`, and touches no other: only a flash that is kept makes it the
current one. There may be no memrt there yet, so a shell, tar and the set's own `install.sh` do the work.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from memrt.runtime.deploy.host.flash import Watcher
from memrt.runtime.deploy.host.ssh import Robot
from memrt.runtime.wheelhouse.wheel_set import LOCK, WHEELS, WheelSet, read_wheel_set

_DIGITS = 12  # of the lock's SHA-256: two builds of one version are two runtimes

# $1: folder of runtimes, $2: where the set goes. Prints the SHA-256 of every wheel that an earlier attempt brought.
_LOOK = """
set -eu
mkdir -p "$1/$2"
cd "$1/$2"
find . -name '*.whl' -exec sha256sum {} +
"""
# $3: the runtime's folder. Its mark is made last, when everything else is on the disk; without it, it is no runtime.
_INSTALL = """
set -eu
cd "$1"
exec 9>.lock
flock -n 9 || { echo "another runtime is being installed" >&2; exit 1; }
if [ ! -f "$3/.installed" ]; then
  rm -rf "$3"
  sh "$2/install.sh" "$1/$3" >&2
  "$3/bin/memrt" target --help >/dev/null
  sync -f "$3"
  touch "$3/.installed"
fi
rm -rf "$2"
[ -e current ] || ln -s "$3" current
sync -f .
"""


def install_runtime(robot: Robot, folder: Path, runtimes: str, watcher: Watcher) -> str:
    """Install the wheel set in `folder` there, unless it is; returns its folder's name below `runtimes`.

    Only wheels that are missing or damaged travel. Raises MemrtError for a wheel set that is none, or is for another
    computer, and when anything fails there; the runtime that runs stays as it is.
    """
    wheels = read_wheel_set(folder)
    digest = hashlib.sha256((folder / LOCK).read_bytes()).hexdigest()[:_DIGITS]
    version, place = f"{wheels.record.memrt}-{digest}", f"wheels-{digest}"
    watcher.step(f"installing memrt {version} there")
    if _shell(robot, 'test ! -f "$1/$2/.installed" || echo yes', runtimes, version).strip() == "yes":
        watcher.line("it is there already")
        return version
    lines = _shell(robot, _LOOK, runtimes, place).splitlines()
    there = {Path(name.lstrip("*")).name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}
    missing = [path for path, sha256 in wheels.wheels.items() if there.get(path.name) != sha256]
    _send(robot, wheels, missing, f"{runtimes}/{place}", watcher)
    watcher.line(f"{len(wheels.wheels)} wheels are there: installing them")
    _shell(robot, _INSTALL, runtimes, place, version)
    return version


def _shell(robot: Robot, script: str, *arguments: str) -> str:
    return robot.run(["sh", "-s", "--", *arguments], stdin=script.encode(), what="installing memrt")


def _send(robot: Robot, wheels: WheelSet, missing: Sequence[Path], folder: str, watcher: Watcher) -> None:
    rest = [path for path in wheels.path.iterdir() if path.is_file()]
    total = sum(path.stat().st_size for path in [*missing, *rest])
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            robot.command(["tar", "-x", "-C", folder]), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said
        )
        assert process.stdin is not None
        try:
            with tarfile.open(mode="w|", fileobj=_Counted(process.stdin, total, watcher), bufsize=1 << 20) as archive:
                for path in rest:
                    archive.add(path, arcname=path.name, filter=_plain)
                for path in missing:
                    archive.add(path, arcname=f"{WHEELS}/{path.name}", filter=_plain)
            process.stdin.close()
        except OSError:
            pass  # tar, or ssh, has ended and said why
        if process.wait() != 0:
            said.seek(0)
            raise robot.failure("receiving the wheel set", process.returncode, said.read().decode("utf-8", "replace"))


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Owned by whoever unpacks it."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o644
    return entry


class _Counted(io.RawIOBase):
    def __init__(self, stream: IO[bytes], total: int, watcher: Watcher) -> None:
        super().__init__()
        self._stream, self._total, self._watcher = stream, total, watcher
        self._sent = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._stream.write(data)
        self._sent += len(data)
        self._watcher.sending(min(self._sent, self._total), self._total)
        return len(data)
