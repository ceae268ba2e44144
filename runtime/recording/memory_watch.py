"""How much memory is left to this process before the kernel ends one (Linux)."""

from __future__ import annotations

from pathlib import Path

LOW_BYTES = 256 << 20  # four times what the recorder's queue may hold

_MEMINFO = Path("/proc/meminfo")
_CGROUP, _CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def running_out() -> bool:
    """Whether less is left than a recording should cost. False where it cannot be told."""
    known = [left for left in (_of_the_computer(), _of_the_control_group()) if left is not None]
    return min(known, default=LOW_BYTES) < LOW_BYTES


def _of_the_computer() -> int | None:
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), None)


def _of_the_control_group() -> int | None:
    """What a service's `MemoryMax=` leaves it; the page cache that it holds counts as left."""
    try:
        group = _CGROUPS / _CGROUP.read_text(encoding="ascii").split("::", 1)[1].strip().lstrip("/")
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
        cached = (group / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, IndexError, ValueError):
        return None
    if limit == "max":
        return None
    kept = next((int(line.split()[1]) for line in cached if line.startswith("inactive_file ")), 0)
    return int(limit) - used + kept
