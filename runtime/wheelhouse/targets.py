"""Which of memrt's extras a kind of robot computer needs, and what its wheels may ask of the system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Arch = Literal["x86_64", "aarch64"]
PYTHONS = ("3.10", "3.11", "3.12")
# Ubuntu 22.04, and with it JetPack 6: the oldest system memrt is installed on.
GLIBC = (2, 35)

# What moves and watches a robot, and the simulator to try the installation with. Extras that an architecture has no
# wheels for (franka on aarch64) are left out by their markers in pyproject.toml.
_ROBOT = ("sim", "serve", "franka", "realsense", "v4l2", "robotiq")


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of robot computer.

    `sources` are packages that their makers publish as source only: they hold no code to compile, and are made into
    wheels that fit every computer. `system_packages` lets the installation see the system's own Python packages.
    """

    name: str
    extras: tuple[str, ...]
    archs: tuple[Arch, ...]
    sources: tuple[str, ...] = ()
    system_packages: bool = False


TARGETS = {
    target.name: target
    for target in (
        Target("cpu", ("cpu", *_ROBOT), ("x86_64", "aarch64")),
        # The package that names the libraries and the bindings, which are wheels.
        Target("rtx", ("cpu", "rtx", *_ROBOT), ("x86_64", "aarch64"), sources=("tensorrt-rtx-cu13",)),
        # TensorRT comes with JetPack, as Debian packages.
        Target("jetson", ("cpu", *_ROBOT), ("aarch64",), system_packages=True),
    )
}


def platforms(arch: Arch) -> list[str]:
    """The platform tags of the wheels that run with this glibc or an older one, newest first (PEP 600, PEP 599)."""
    tags = [f"manylinux_{GLIBC[0]}_{minor}_{arch}" for minor in range(GLIBC[1], 4, -1)]
    legacy = ["manylinux2014"] if arch == "aarch64" else ["manylinux2014", "manylinux2010", "manylinux1"]
    return [*tags, *(f"{name}_{arch}" for name in legacy), f"linux_{arch}"]
