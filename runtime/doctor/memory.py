"""Memory: swap, huge pages, how much is left.

Sources: the kernel's Documentation/admin-guide/mm/transhuge.rst (khugepaged, `madvise`) and blockdev/zram.rst,
swapon(8); NVIDIA's Jetson Linux (nvzramconfig).
"""

from __future__ import annotations

import re

from memrt.runtime.bench.hardware import GIB, memory_fields
from memrt.runtime.doctor.finding import Finding, at_boot, fine, unknown, warning
from memrt.runtime.doctor.snapshot import Snapshot, number
from memrt.runtime.doctor.system import jetson_release

SWAPS, HUGE, MEMINFO = "/proc/swaps", "/sys/kernel/mm/transparent_hugepage/enabled", "/proc/meminfo"
FILES = (SWAPS, HUGE, MEMINFO)
LEAST_AVAILABLE = GIB  # the reference policies, the recorder's queue (64 MB) and the cameras' rings fit in it


def examine(snapshot: Snapshot) -> list[Finding]:
    """Findings about memory."""
    return [_swap(snapshot), _huge_pages(snapshot), _available(snapshot)]


def _swap(snapshot: Snapshot) -> Finding:
    if SWAPS not in snapshot.files:
        return unknown("swap", f"no {SWAPS}")
    rows = [row for line in snapshot.text(SWAPS).splitlines()[1:] if len(row := line.split()) == 5]
    if not rows:
        return fine("swap", "none")
    used = sum(number(row[3]) or 0.0 for row in rows) / 1024
    compressed = all("zram" in row[0] for row in rows)
    found = f"{len(rows)} {'compressed in memory (zram)' if compressed else 'on disk'}, {used:.0f} MiB in use"
    if compressed:
        cost = "a page of the node that was swapped out is unpacked when it is touched: tens of microseconds each"
    else:
        cost = "a page of the node that was swapped out is read from disk when it is touched: milliseconds late"
    if compressed and jetson_release(snapshot):
        return warning("swap", found, cost, "sudo systemctl disable --now nvzramconfig")
    return warning("swap", found, cost, "sudo swapoff -a", r"sudo sed -i.bak '/\sswap\s/s/^/#/' /etc/fstab")


def _huge_pages(snapshot: Snapshot) -> Finding:
    about, chosen = "transparent huge pages", re.search(r"\[(\w+)\]", snapshot.text(HUGE))
    if chosen is None:
        return fine(about, "not in this kernel") if HUGE not in snapshot.files else unknown(about, "not said")
    if chosen.group(1) != "always":
        return fine(about, chosen.group(1))
    cost = "the kernel moves pages of running programs together; a thread that touches them meanwhile waits"
    return warning(about, "always", cost, *at_boot("hugepages", HUGE, "madvise"))


def _available(snapshot: Snapshot) -> Finding:
    memory = memory_fields(snapshot.text(MEMINFO))
    if "MemAvailable" not in memory:
        return unknown("available memory", f"no {MEMINFO}")
    found = f"{memory['MemAvailable'] / GIB:.1f} of {memory.get('MemTotal', 0) / GIB:.1f} GiB"
    if memory["MemAvailable"] >= LEAST_AVAILABLE:
        return fine("available memory", found)
    cost = "when it runs out the kernel ends processes: the recorder first, then the runtime, and the arm brakes"
    return warning("available memory", found, cost, "ps -eo rss,comm --sort=-rss | head")
