"""Makes a wheel set: memrt's own wheel, and one wheel of everything it needs on one kind of computer."""

from __future__ import annotations

import importlib.resources
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from memrt.runtime.errors import MemrtError
from memrt.runtime.wheelhouse.licences import write_licences
from memrt.runtime.wheelhouse.resolve import fetch, resolve
from memrt.runtime.wheelhouse.targets import GLIBC, Arch, Target
from memrt.runtime.wheelhouse.wheel_set import INSTALL, WHEELS, WheelSet, WheelSetRecord, pin_of, read_wheel_set, seal


@dataclass(frozen=True, slots=True)
class Order:
    """What a wheel set is to hold.

    `wheel` is memrt's own wheel; None takes the one of this version from the index. `preferred` is a file of pins that
    are taken where the computer has wheels of them. `index` are options that uv and pip share.
    """

    target: Target
    python: str
    arch: Arch
    extras: tuple[str, ...]
    wheel: Path | None = None
    preferred: Path | None = None
    index: tuple[str, ...] = ()


def build_wheel_set(out: Path, order: Order, *, progress: Callable[[str], None]) -> WheelSet:
    """Make the wheel set in the new folder `out`, which appears when it is whole."""
    target, python, arch = order.target, order.python, order.arch
    if out.exists():
        raise MemrtError(f"wheel set {out}", expected="a new folder", found="one that is there", fix="remove it first")
    if arch not in target.archs:
        raise MemrtError(
            f"target {target.name}",
            expected=f"one of {', '.join(target.archs)}",
            found=arch,
            fix="choose another --arch",
        )
    own = version("memrt")
    index: Sequence[str] = order.index
    if order.wheel is not None:
        _check_wheel(order.wheel, python, arch)
        own = pin_of(order.wheel).version
        index = [*index, "--find-links", str(order.wheel.resolve().parent)]
    progress(f"choosing versions for {target.name}, {arch}, Python {python}")
    wanted = f"memrt[{','.join(order.extras)}]=={own}"
    pins = resolve(wanted, target, python, arch, preferred=order.preferred, index=index)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        made = Path(scratch) / "set"
        progress(f"fetching {len(pins)} wheels")
        fetch(pins, target, python, arch, made / WHEELS, index)
        write_licences(made)
        with importlib.resources.as_file(importlib.resources.files(__package__) / INSTALL) as script:
            shutil.copyfile(script, made / INSTALL)
        glibc = ".".join(map(str, GLIBC))
        record = WheelSetRecord(own, target.name, python, arch, glibc, order.extras, target.system_packages)
        seal(made, record)
        made.rename(out)
    return read_wheel_set(out)


def _check_wheel(wheel: Path, python: str, arch: Arch) -> None:
    tag = f"cp{python.replace('.', '')}"
    if (
        not wheel.is_file()
        or not wheel.name.startswith("memrt-")
        or f"-{tag}-" not in wheel.name
        or arch not in wheel.name
    ):
        raise MemrtError(
            "memrt's own wheel",
            expected=f"memrt-VERSION-{tag}-...{arch}.whl",
            found=wheel if wheel.is_file() else f"no file {wheel}",
            fix="make it with `make wheel` on such a computer, or `make wheels`",
        )
