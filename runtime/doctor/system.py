"""Which system this is: what a remedy is called differs between Debian, Ubuntu and a Jetson.

Sources: os-release(5); NVIDIA Jetson Linux Developer Guide (/etc/nv_tegra_release names the release).
"""

from __future__ import annotations

import re

from memrt.runtime.doctor.snapshot import Snapshot
from memrt.runtime.processor import Processor, processor_of

FILES = (
    *("/etc/os-release", "/etc/nv_tegra_release", "/proc/device-tree/model", "/proc/version", "/proc/cpuinfo"),
    *("/.dockerenv", "/run/.containerenv", "/run/systemd/container"),
)
INSTALL = "sudo apt-get install -y --no-install-recommends"


def distribution(snapshot: Snapshot) -> str:
    """`debian`, `ubuntu`, or what the system calls itself; "" where it does not."""
    return _os_release(snapshot).get("ID", "")


def jetson_release(snapshot: Snapshot) -> str:
    """Jetson Linux' release such as `36.4`; "" on any other computer."""
    found = re.search(r"R(\d+) \(release\), REVISION: (\d+)", snapshot.text("/etc/nv_tegra_release"))
    return f"{found.group(1)}.{found.group(2)}" if found else ""


def is_thor(snapshot: Snapshot) -> bool:
    """Whether it is a Jetson Thor, whose kernel packages differ from the Orin's."""
    return "Thor" in snapshot.text("/proc/device-tree/model")


def in_container(snapshot: Snapshot) -> bool:
    """Whether the kernel, and its settings, are another system's."""
    return any(path in snapshot.files for path in ("/.dockerenv", "/run/.containerenv", "/run/systemd/container"))


def in_virtual_machine(snapshot: Snapshot) -> bool:
    """Whether the processor says that it is a virtual one (x86)."""
    return "hypervisor" in processor(snapshot).flags


def processor(snapshot: Snapshot) -> Processor:
    """The first processor; it has no flags where /proc/cpuinfo is missing."""
    return processor_of(snapshot.text("/proc/cpuinfo"), snapshot.machine)


def describe(snapshot: Snapshot) -> str:
    """One line: system, kernel, architecture."""
    kernel = re.match(r"Linux version ([\d.]+)", snapshot.text("/proc/version"))
    jetson = jetson_release(snapshot)
    parts = [
        _os_release(snapshot).get("PRETTY_NAME", ""),
        f"Jetson Linux {jetson}" if jetson else "",
        f"Linux {kernel.group(1)}" if kernel else "",
        snapshot.machine,
        "in a container" if in_container(snapshot) else "",
        "in a virtual machine" if in_virtual_machine(snapshot) else "",
    ]
    return ", ".join(part for part in parts if part)


def _os_release(snapshot: Snapshot) -> dict[str, str]:
    lines = (line.partition("=") for line in snapshot.text("/etc/os-release").splitlines())
    return {key: value.strip("\"'") for key, _, value in lines}
