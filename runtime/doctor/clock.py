"""Clocks: what CLOCK_MONOTONIC is read from, and whether the wall clock is right.

Sources: the kernel's Documentation/timers/timekeeping.rst and hrtimers.rst, vdso(7), adjtimex(2), timedatectl(1).
"""

from __future__ import annotations

from memrt.runtime.doctor.finding import Finding, fine, unknown, warning
from memrt.runtime.doctor.snapshot import Snapshot
from memrt.runtime.doctor.system import INSTALL, in_container

SOURCE = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
OFFERED = "/sys/devices/system/clocksource/clocksource0/available_clocksource"
FILES = (SOURCE, OFFERED)
# Read in user space, in some tens of nanoseconds. The others take a system call, and a device behind a slow bus.
FAST = ("tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter")
HIGH_RESOLUTION_NS = 1


def examine(snapshot: Snapshot) -> list[Finding]:
    """Findings about clocks."""
    return [_source(snapshot), _timers(snapshot), _synchronised(snapshot)]


def _source(snapshot: Snapshot) -> Finding:
    about, source = "clock source", snapshot.text(SOURCE)
    if not source:
        return unknown(about, f"no {SOURCE}")
    took = f", {snapshot.clock.read_ns:.0f} ns a reading" if snapshot.clock is not None else ""
    if source in FAST:
        return fine(about, f"{source}{took}")
    cost = "each reading of the clock takes a microsecond or more instead of 0.03; every stage reads it several times"
    mend = ["sudo dmesg | grep -i -e tsc -e clocksource # why the kernel gave the processor's counter up"]
    if "tsc" in snapshot.text(OFFERED).split():
        mend.append(f"echo tsc | sudo tee {SOURCE}")
    return warning(about, f"{source}{took}", cost, *mend)


def _timers(snapshot: Snapshot) -> Finding:
    if snapshot.clock is None:
        return unknown("timers", "not measured")
    if snapshot.clock.resolution_ns <= HIGH_RESOLUTION_NS:
        return fine("timers", "high resolution")
    found = f"a resolution of {snapshot.clock.resolution_ns / 1e6:g} ms"
    cost = "a thread cannot sleep for less: no control loop at 1 kHz"
    return warning("timers", found, cost, "# boot without `highres=off` and `nohz=off`, see: cat /proc/cmdline")


def _synchronised(snapshot: Snapshot) -> Finding:
    about = "wall clock"
    if snapshot.clock is None or snapshot.clock.synchronised is None:
        return unknown(about, "the kernel does not say whether it is synchronised")
    if snapshot.clock.synchronised:
        return fine(about, "synchronised")
    cost = (
        "control is not affected (it uses the monotonic clock), but the dates of recordings and logs are wrong, "
        "and files of two computers cannot be laid side by side"
    )
    if in_container(snapshot):
        return warning(about, "not synchronised", cost, "# on the container's host: sudo timedatectl set-ntp true")
    return warning(about, "not synchronised", cost, f"{INSTALL} chrony", "chronyc waitsync 30 0.1")
