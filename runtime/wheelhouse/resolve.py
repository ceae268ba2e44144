"""Chooses one version of everything for another computer, and fetches the wheels: uv resolves, pip downloads.

pip evaluates markers (`platform_machine == 'aarch64'`) for the computer it runs on, whatever `--platform` says; uv does
so for the computer asked for. pip fetches, because it knows the user's index, proxy and certificates.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from memrt.runtime.errors import MemrtError
from memrt.runtime.wheelhouse.targets import GLIBC, Arch, Target, platforms

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)(?P<hashes>(?:\s+--hash=\S+)+)$")


@dataclass(frozen=True, slots=True)
class Pin:
    """One version of a package, and the hashes of the files that its index holds of it."""

    name: str
    version: str
    hashes: tuple[str, ...]

    def line(self) -> str:
        """As a line of a requirements file."""
        return " ".join([f"{self.name}=={self.version}", *(f"--hash={value}" for value in self.hashes)])


def normalised(name: str) -> str:
    """A package's name as indexes spell it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_pins(lock: str) -> list[Pin]:
    """The lines `name==version --hash=... [--hash=...]` of a requirements file; others are refused."""
    pins = []
    for line in lock.replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        found = _PIN.match(line.strip())
        if found is None:
            raise MemrtError(
                "requirements.lock",
                expected="lines `name==version --hash=sha256:...`",
                found=line.strip(),
                fix="make the wheel set anew with `memrt wheelhouse`",
            )
        hashes = tuple(part.removeprefix("--hash=") for part in found["hashes"].split())
        pins.append(Pin(normalised(found["name"]), found["version"], hashes))
    return pins


def resolve(
    requirement: str, target: Target, python: str, arch: Arch, *, preferred: Path | None, index: Sequence[str]
) -> list[Pin]:
    """One version of everything that `requirement` needs on that computer, with wheels for it.

    `preferred` is a file of pins: its versions are taken where the computer has wheels of them. `index` are options
    that uv and pip share (`--find-links FOLDER`, `--index-url URL`, `--extra-index-url URL`).
    """
    with tempfile.TemporaryDirectory() as folder:
        wanted, lock = Path(folder) / "requirements.in", Path(folder) / "requirements.lock"
        wanted.write_text(requirement + "\n", encoding="utf-8")
        if preferred is not None:
            # uv keeps the versions of the file that it is to write, as far as they fit.
            lock.write_text(preferred.read_text(encoding="utf-8"), encoding="utf-8")
        sources = [option for name in target.sources for option in ("--no-binary", name)]
        plain = ["--quiet", "--no-config", "--no-header", "--no-annotate", "--generate-hashes"]
        computer = ["--python-version", python, "--python-platform", f"{arch}-manylinux_{GLIBC[0]}_{GLIBC[1]}"]
        files = ["--only-binary", ":all:", *sources, *index, "--output-file", str(lock), str(wanted)]
        _call(
            ["uv", "pip", "compile", *plain, *computer, *files],
            f"no set of wheels for {target.name} on {arch} with Python {python}",
            "choose another Python version or --extras; uv comes with `pip install 'memrt[release]'`",
        )
        return parse_pins(lock.read_text(encoding="utf-8"))


def fetch(pins: Sequence[Pin], target: Target, python: str, arch: Arch, wheels: Path, index: Sequence[str]) -> None:
    """Put one wheel of every pin into the folder `wheels`, each checked against the pin's hashes."""
    wheels.mkdir(parents=True, exist_ok=True)
    short = python.replace(".", "")
    tags = [option for tag in platforms(arch) for option in ("--platform", tag)]
    abis = [option for abi in (f"cp{short}", "abi3", "none") for option in ("--abi", abi)]
    computer = ["--implementation", "cp", "--python-version", python, *abis, *tags]
    source = [pin for pin in pins if pin.name in target.sources]
    with tempfile.TemporaryDirectory() as folder:
        lock = Path(folder) / "requirements.lock"
        common = ["--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--requirement", str(lock)]
        lock.write_text("".join(pin.line() + "\n" for pin in pins if pin not in source), encoding="utf-8")
        _call(
            ["pip", "download", *common, *index, *computer, "--dest", str(wheels), "--only-binary", ":all:"],
            "pip could not fetch the wheels",
            "see pip's words above",
        )
        if source:
            lock.write_text("".join(pin.line() + "\n" for pin in source), encoding="utf-8")
            _call(
                ["pip", "wheel", *common, *index, "--wheel-dir", str(wheels), "--no-binary", ":all:"],
                "pip could not make wheels of " + ", ".join(pin.name for pin in source),
                "see pip's words above",
            )


def _call(module: list[str], what: str, fix: str) -> None:
    """Run a module of this Python as a program; what it says goes to stderr."""
    done = subprocess.run([sys.executable, "-m", *module], stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise MemrtError(what, expected=f"`{' '.join(module[:3])}` to succeed", found="an error, above", fix=fix)
