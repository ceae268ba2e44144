"""The wheel set: a folder with one wheel of everything memrt needs on one kind of computer, and their lock.

SET/wheelhouse.json     for which computer it is
SET/requirements.lock   one line per wheel: name, version, SHA-256
SET/wheels/             the wheels, and nothing else
SET/THIRD_PARTY.md      their licences
SET/install.sh          installs them into a new virtual environment, without a network
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from memrt.runtime.errors import MemrtError
from memrt.runtime.wheelhouse.resolve import Pin, normalised, parse_pins

RECORD, LOCK, WHEELS, LICENCES, INSTALL = (
    "wheelhouse.json",
    "requirements.lock",
    "wheels",
    "THIRD_PARTY.md",
    "install.sh",
)
SCHEMA = 1


class WheelSetRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `wheelhouse.json` holds. `python` is `major.minor`, `glibc` the oldest C library the set is for."""

    memrt: str
    target: str
    python: str
    arch: str
    glibc: str
    extras: tuple[str, ...]
    system_packages: bool
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class WheelSet:
    """A wheel set whose every wheel has the bytes that the lock names. `wheels` gives each wheel's SHA-256 by path."""

    path: Path
    record: WheelSetRecord
    wheels: Mapping[Path, str]

    @property
    def size(self) -> int:
        """Bytes of all wheels."""
        return sum(wheel.stat().st_size for wheel in self.wheels)


def pin_of(wheel: Path) -> Pin:
    """A wheel's name and version, from its file's name (PEP 427), and its SHA-256."""
    name, version, *_ = wheel.name.split("-")
    with wheel.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 20):
            digest.update(block)
    return Pin(normalised(name), version, (f"sha256:{digest.hexdigest()}",))


def seal(folder: Path, record: WheelSetRecord) -> None:
    """Write the lock of the wheels in `folder`, and its record."""
    pins = sorted((pin_of(wheel) for wheel in (folder / WHEELS).glob("*.whl")), key=lambda pin: pin.name)
    (folder / LOCK).write_text("".join(pin.line() + "\n" for pin in pins), encoding="utf-8")
    document = msgspec.json.format(msgspec.json.encode(record), indent=2)
    (folder / RECORD).write_bytes(document + b"\n")


def read_wheel_set(folder: Path) -> WheelSet:
    """Read a wheel set and check every wheel. Raises MemrtError for a missing, changed or unlisted one."""
    try:
        record = msgspec.json.decode((folder / RECORD).read_bytes(), type=WheelSetRecord)
        lock = (folder / LOCK).read_text(encoding="utf-8")
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _refusal(folder, f"a folder that `memrt wheelhouse` made, with {RECORD} and {LOCK}", error) from error
    if record.schema != SCHEMA:
        raise _refusal(folder, f"schema {SCHEMA}", f"schema {record.schema}")
    locked = {(pin.name, pin.version): pin.hashes for pin in parse_pins(lock)}
    wheels = {}
    for path in sorted((folder / WHEELS).iterdir()) if (folder / WHEELS).is_dir() else ():
        if path.suffix != ".whl" or path.is_symlink() or not path.is_file():
            raise _refusal(folder, "wheels only", f"`{path.name}`")
        pin = pin_of(path)
        hashes = locked.pop((pin.name, pin.version), None)
        if hashes is None:
            raise _refusal(folder, f"the wheels that {LOCK} names", f"`{path.name}` besides")
        if hashes != pin.hashes:
            raise _refusal(folder, f"`{path.name}` with {hashes[0]}", pin.hashes[0])
        wheels[path] = pin.hashes[0].removeprefix("sha256:")
    if locked:
        raise _refusal(folder, f"the wheels that {LOCK} names", f"no {', '.join('=='.join(key) for key in locked)}")
    return WheelSet(folder, record, wheels)


def _refusal(folder: Path, expected: object, found: object) -> MemrtError:
    return MemrtError(
        f"wheel set {folder}",
        expected=expected,
        found=found,
        fix="make it anew with `memrt wheelhouse`, or copy it again",
    )
