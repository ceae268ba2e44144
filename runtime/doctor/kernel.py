"""The kernel: whether it is a real-time one, and whether a host above it may stop it.

Sources: the kernel's Documentation/core-api/real-time/ and scheduler/sched-rt-group.rst; libfranka's
`hasRealtimeKernel`, which looks at /sys/kernel/realtime and nothing else (a file of the patch, not of the mainline
kernels that have PREEMPT_RT since 6.12); Franka's "Minimum system and network requirements": an answer every
millisecond, 20 missed in a row end the motion; Debian's linux-image-rt-*, Canonical's "How to enable Real-time Ubuntu",
NVIDIA's Jetson Linux Developer Guide, "Installing Real-Time Kernel".
"""

from __future__ import annotations

import re

from memrt.runtime.doctor.finding import Finding, at_boot, fine, judged, unknown, warning
from memrt.runtime.doctor.snapshot import Snapshot, number
from memrt.runtime.doctor.system import INSTALL, distribution, in_virtual_machine, is_thor, jetson_release

REALTIME = "/sys/kernel/realtime"
RUNTIME, PERIOD = "/proc/sys/kernel/sched_rt_runtime_us", "/proc/sys/kernel/sched_rt_period_us"
FILES = (REALTIME, RUNTIME, PERIOD, "/proc/version")
LEAST_SHARE = 0.5  # of each period; the kernel's default is 0.95, memrt's real-time threads need a few per cent
IGNORE = "# or give the robot's YAML `settings: {realtime: ignore}`, and expect robot stops on a busy computer"


def examine(snapshot: Snapshot) -> list[Finding]:
    """Findings about the kernel."""
    return [_preemption(snapshot), *_realtime_file(snapshot), _share(snapshot), _virtual(snapshot)]


def preempt_rt(snapshot: Snapshot) -> bool:
    """Whether the running kernel was built with PREEMPT_RT."""
    version = snapshot.text("/proc/version")
    return snapshot.text(REALTIME) == "1" or re.search(r"PREEMPT[_ ]RT\b", version) is not None


def _preemption(snapshot: Snapshot) -> Finding:
    about = "real-time kernel"
    if not snapshot.text("/proc/version"):
        return unknown(about, "no /proc/version: not Linux, or hidden")
    if preempt_rt(snapshot):
        return fine(about, "PREEMPT_RT")
    needed = snapshot.robot is not None and snapshot.robot.enforces_realtime
    cost = (
        "beside busy programs and drivers the control thread wakes milliseconds late; a Franka stops after 20 missed "
        "milliseconds, and its driver refuses this kernel unless told otherwise"
    )
    mend = (*_install(snapshot), *([IGNORE] if needed else []))
    return judged(needed, about, "none: this kernel has no PREEMPT_RT", cost, *mend)


def _install(snapshot: Snapshot) -> tuple[str, ...]:
    release, name, reboot = jetson_release(snapshot), distribution(snapshot), "sudo reboot"
    if release:
        packages = ["nvidia-l4t-rt-kernel" + part for part in ("", "-headers", "-oot-modules")]
        packages += ["nvidia-l4t-display-rt-kernel", *(["nvidia-l4t-rt-kernel-openrm"] if is_thor(snapshot) else [])]
        source = f"deb https://repo.download.nvidia.com/jetson/rt-kernel r{release} main"
        add = f"echo '{source}' | sudo tee -a /etc/apt/sources.list.d/nvidia-l4t-apt-source.list"
        return add, f"sudo apt-get update && sudo apt-get install -y {' '.join(packages)}", reboot
    if name == "ubuntu":
        return "sudo pro attach", "sudo pro enable realtime-kernel", reboot
    if name == "debian":
        kind = {"x86_64": "amd64", "aarch64": "arm64"}.get(snapshot.machine, snapshot.machine)
        return f"{INSTALL} linux-image-rt-{kind}", reboot
    return ("# install your distribution's kernel with PREEMPT_RT, and boot it",)


def _realtime_file(snapshot: Snapshot) -> list[Finding]:
    """On a real-time kernel whose indicator is missing, libfranka believes that it is none."""
    if not preempt_rt(snapshot) or snapshot.text(REALTIME) == "1":
        return []
    cost = "libfranka looks at this file alone: with `realtime: enforce` the Franka driver refuses this kernel"
    wrong = snapshot.robot is not None and snapshot.robot.enforces_realtime
    mend = (
        "# boot a real-time kernel that has the file (Debian's, Ubuntu's and NVIDIA's do),",
        "# or give the robot's YAML `settings: {realtime: ignore}`: this kernel is real-time all the same",
    )
    return [judged(wrong, REALTIME, "missing, though the kernel has PREEMPT_RT", cost, *mend)]


def _share(snapshot: Snapshot) -> Finding:
    about, runtime, period = "time for real-time threads", number(snapshot.text(RUNTIME)), number(snapshot.text(PERIOD))
    if runtime is None or not period:
        return unknown(about, f"no {RUNTIME}")
    if runtime < 0 or runtime >= LEAST_SHARE * period:
        return fine(about, "not limited" if runtime < 0 else f"{runtime / period:.0%} of each period")
    found = f"{runtime / 1000:g} ms of each {period / 1000:g} ms"
    cost = "control threads that have used it up stand still for the rest of the period"
    return warning(about, found, cost, *at_boot("realtime-share", RUNTIME, "950000"))


def _virtual(snapshot: Snapshot) -> Finding:
    if not in_virtual_machine(snapshot):
        return fine("virtual machine", "none")
    cost = "its host takes the cores away for milliseconds at a time, which no setting in here prevents"
    return warning("virtual machine", "the processor is a virtual one", cost, "# run the robot's node on bare metal")
