"""What this user may: real-time priority, locked memory. A service has rights of its own (runtime/service).

Sources: sched(7), setrlimit(2), capabilities(7), limits.conf(5); Franka's "Allow a user to set real-time permissions
for its processes" (rtprio 99, memlock); runtime/memory_lock.py, which locks only where the limit was lifted.
"""

from __future__ import annotations

import re

from memrt.runtime.bench.hardware import CONTROL_PRIORITY
from memrt.runtime.doctor.finding import Finding, fine, judged, unknown, warning
from memrt.runtime.doctor.snapshot import Snapshot, number

LIMITS, STATUS = "/proc/self/limits", "/proc/self/status"
FILES = (LIMITS, STATUS)
CAP_SYS_NICE = 23  # linux/capability.h
GRANT = (
    'sudo groupadd -f realtime && sudo usermod -aG realtime "$USER"',
    "printf '@realtime - rtprio 99\\n@realtime - memlock unlimited\\n' | "
    "sudo tee /etc/security/limits.d/99-realtime.conf",
    "# log in again",
)


def examine(snapshot: Snapshot) -> list[Finding]:
    """Findings about what this user may."""
    return [_priority(snapshot), _locked(snapshot)]


def _priority(snapshot: Snapshot) -> Finding:
    about, limit = "real-time priority", _soft_limit(snapshot, "Max realtime priority")
    if limit is None:
        return unknown(about, f"no {LIMITS}")
    tried = snapshot.lateness
    if tried.realtime if tried is not None else _may(snapshot, CAP_SYS_NICE) or limit >= CONTROL_PRIORITY:
        return fine(about, "granted")
    wrong = snapshot.robot is not None and snapshot.robot.enforces_realtime
    found = f"refused (limit {limit:g}; the control thread asks for {CONTROL_PRIORITY}, libfranka for 99)"
    cost = "the control thread waits for its turn behind every busy program: milliseconds late, robot stops"
    if limit >= CONTROL_PRIORITY:  # a control group without real-time time (CONFIG_RT_GROUP_SCHED), or a container
        mend = ("# start memrt outside this container or control group, or give that one real-time time",)
        return judged(wrong, about, found, cost, *mend)
    return judged(wrong, about, found, cost, *GRANT)


def _locked(snapshot: Snapshot) -> Finding:
    about, limit = "locked memory", _soft_limit(snapshot, "Max locked memory")
    if limit is None:
        return unknown(about, f"no {LIMITS}")
    if limit == float("inf"):
        return fine(about, "not limited")
    found = f"at most {limit / 1024:.0f} KiB, so the robot's node locks nothing"
    cost = "when memory runs short, the kernel drops pages of it and reads them from disk again: milliseconds each"
    return warning(about, found, cost, *GRANT)


def _soft_limit(snapshot: Snapshot, name: str) -> float | None:
    found = re.search(rf"^{name}\s+(\S+)", snapshot.text(LIMITS), re.MULTILINE)
    if found is None:
        return None
    return float("inf") if found.group(1) == "unlimited" else number(found.group(1))


def _may(snapshot: Snapshot, capability: int) -> bool:
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", snapshot.text(STATUS), re.MULTILINE)
    return found is not None and bool(int(found.group(1), 16) >> capability & 1)
