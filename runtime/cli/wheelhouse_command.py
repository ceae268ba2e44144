"""`memrt wheelhouse`: everything a robot's computer installs, in one folder that needs no network."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from memrt.runtime.cli.progress import tell
from memrt.runtime.errors import MemrtError

JSON = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("wheelhouse")(wheelhouse)


def wheelhouse(
    out: Annotated[Path, typer.Argument(help="The wheel set: a new folder; with --check, one to check.")],
    *,
    target: Annotated[str, typer.Option(help="Kind of the robot's computer: cpu, rtx or jetson.")] = "cpu",
    python: Annotated[str, typer.Option(help="Its Python: 3.10, 3.11 or 3.12.")] = ".".join(
        platform.python_version_tuple()[:2]
    ),
    arch: Annotated[
        str | None, typer.Option(help="x86_64 or aarch64.", show_default="aarch64 for jetson, else this computer's")
    ] = None,
    wheel: Annotated[
        Path | None, typer.Option(help="memrt's own wheel for it.", show_default="this version, from the index")
    ] = None,
    extras: Annotated[
        str | None, typer.Option(help="memrt's extras, by commas.", show_default="all that a robot needs")
    ] = None,
    prefer: Annotated[
        Path | None, typer.Option(help="A file of pins to keep to.", show_default="constraints.txt of the repository")
    ] = None,
    index_url: Annotated[str | None, typer.Option(help="Another package index than PyPI.")] = None,
    find_links: Annotated[list[Path] | None, typer.Option(help="A folder of wheels to take from as well.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only check the wheels of a set against its lock.")] = False,
    as_json: JSON = False,
) -> None:
    """Lock and fetch everything that memrt needs on a robot's computer, for that computer, from this one.

    The set installs with `sh OUT/install.sh FOLDER`, or by `memrt flash`, without a network. Every wheel is checked
    against the hashes in requirements.lock. Versions are those of constraints.txt, which were tested together, where
    the computer's Python has wheels of them.

    Examples:

        memrt wheelhouse wheels-cpu --wheel dist/memrt-0.1.0-cp311-cp311-manylinux_2_34_x86_64.whl

        memrt wheelhouse wheels-orin --target jetson --python 3.10

        memrt wheelhouse wheels-cpu --check --json
    """
    from memrt.runtime.wheelhouse.build import Order, build_wheel_set
    from memrt.runtime.wheelhouse.targets import PYTHONS, TARGETS
    from memrt.runtime.wheelhouse.wheel_set import read_wheel_set

    if check:
        found = read_wheel_set(out)
    else:
        kind = TARGETS[_one_of("--target", target, TARGETS)]
        machine = arch or (kind.archs[0] if platform.machine() not in kind.archs else platform.machine())
        index = ["--index-url", index_url] if index_url else []
        for folder in find_links or []:
            index += ["--find-links", str(folder)]
        order = Order(
            target=kind,
            python=_one_of("--python", python, PYTHONS),
            arch="aarch64" if _one_of("--arch", machine, kind.archs) == "aarch64" else "x86_64",
            extras=tuple(extras.split(",")) if extras else kind.extras,
            wheel=wheel,
            preferred=prefer or _constraints(),
            index=tuple(index),
        )
        found = build_wheel_set(out, order, progress=tell)
    if as_json:
        report: dict[str, Any] = msgspec.to_builtins(found.record)
        print(json.dumps({"wheel_set": str(out), **report, "wheels": len(found.wheels), "bytes": found.size}))
        return
    record = found.record
    tell(
        f"{out}: {len(found.wheels)} wheels, {found.size / 1e6:.0f} MB, all of them checked: memrt {record.memrt} for "
        f"{record.target} on {record.arch}, Python {record.python}"
    )


def _one_of(option: str, value: str, known: Any) -> str:
    if value not in known:
        raise MemrtError(option, expected=f"one of {', '.join(known)}", found=value, fix="choose one of them")
    return value


def _constraints() -> Path | None:
    """The versions tested together; a wheel does not hold them."""
    path = Path(__file__).resolve().parents[2] / "constraints.txt"
    return path if path.is_file() else None
