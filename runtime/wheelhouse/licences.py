"""Licence notes of everything that a wheel set passes on, read from the wheels' own metadata."""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from pathlib import Path

from memrt.runtime.errors import MemrtError
from memrt.runtime.wheelhouse.resolve import normalised
from memrt.runtime.wheelhouse.wheel_set import LICENCES, WHEELS

# Free texts and trove classifiers, as SPDX says them.
_SPDX = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd license": "BSD",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "other/proprietary license": "Proprietary",
}

# What memrt's own wheel is compiled with, and ships in its one binary: their metadata is not in the wheel set.
_COMPILED_IN = (
    ("ruckig", "MIT", "https://ruckig.com", "headers and static library, in `_core`"),
    ("nanobind", "BSD-3-Clause", "https://github.com/wjakob/nanobind", "static library, in `_core`"),
    ("robin-map", "MIT", "https://github.com/Tessil/robin-map", "headers, as part of nanobind"),
)

# What the metadata does not say: libraries inside a wheel whose licence asks more of who passes it on.
_NOTES = {
    "franky-control": "holds libfranka (Apache-2.0), Poco and Boost (BSL-1.0), fmt and ruckig (MIT)",
    "imageio-ffmpeg": "holds a program, FFmpeg built with `--enable-gpl --enable-version3`: GPL-3.0-or-later. memrt "
    "starts it as a process of its own; who passes the wheel on offers FFmpeg's source",
    "opencv-python-headless": "holds FFmpeg's libraries (LGPL-2.1-or-later, linked dynamically) and OpenSSL",
    "pillow": "holds image libraries under permissive licences, listed in its LICENSE",
    "pyrealsense2": "holds librealsense (Apache-2.0); libusb (LGPL-2.1) is Debian's",
    "pyzmq": "holds libzmq (MPL-2.0) and libsodium (ISC), unchanged",
    "simplejpeg": "holds libjpeg-turbo (IJG, BSD-3-Clause, Zlib)",
    "tensorrt-rtx-cu13": "NVIDIA's software licence agreement: read it before you use these, and before you pass on "
    "a wheel set that holds them",
    "tqdm": "used through huggingface-hub, unchanged",
}
_NOTES["tensorrt-rtx-cu13-bindings"] = _NOTES["tensorrt-rtx-cu13-libs"] = "see tensorrt-rtx-cu13"


@dataclass(frozen=True, slots=True)
class Licence:
    """One package's licence: an SPDX expression where its metadata has one, and its project's address."""

    package: str
    version: str
    licence: str
    address: str


def read_licence(wheel: Path) -> Licence:
    """From the METADATA of a wheel. Raises MemrtError where it says nothing."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        metadata = Parser().parsestr(archive.read(name).decode("utf-8"), headersonly=True)
    return licence_of(metadata)


def licence_of(metadata: Message) -> Licence:
    """From a distribution's metadata (PEP 639 first, then what came before it)."""
    name = normalised(str(metadata["Name"]))
    classifiers = [
        str(line).split(" :: ")[-1] for line in metadata.get_all("Classifier", []) if str(line)[:7] == "License"
    ]
    found = [str(metadata["License-Expression"] or ""), _short(metadata["License"]), *classifiers]
    licence = next((text for text in found if text), None)
    if licence is None:
        raise MemrtError(
            f"licence of {name}",
            expected="one in the package's metadata",
            found="none",
            fix="read the package's licence file, and name it in runtime/wheelhouse/licences.py",
        )
    links = dict(str(line).split(", ", 1) for line in metadata.get_all("Project-URL", []) if ", " in str(line))
    known = {label.lower(): link for label, link in links.items()}
    pages = (
        metadata["Home-page"],
        known.get("homepage"),
        known.get("source"),
        known.get("repository"),
        *links.values(),
    )
    address = next((str(page) for page in pages if page), f"https://pypi.org/project/{name}/")
    return Licence(name, str(metadata["Version"]), _SPDX.get(licence.lower(), licence), address)


def _short(text: str | None) -> str:
    """A licence's name; some packages put its whole text there, and then a classifier says it."""
    return text if text and "\n" not in text and len(text) < 60 and text.upper() != "BSD" else ""


def third_party(folders: Iterable[Path]) -> str:
    """The licence notes of wheel sets, as Markdown: one row per package, with the versions that the sets hold."""
    found: dict[str, list[Licence]] = {}
    for folder in folders:
        for wheel in sorted((folder / WHEELS).glob("*.whl")):
            licence = read_licence(wheel)
            if licence.package != "memrt":
                found.setdefault(licence.package, []).append(licence)
    lines = [
        "# Third-party software",
        "",
        "memrt itself is Apache-2.0 (LICENSE). This file is made from the metadata of the wheels: `memrt wheelhouse` "
        "writes it into every set, `make third-party` into the repository. The licences' texts lie in the wheels, and "
        "after installation in `*.dist-info/`. The reference policies were trained by memrt's own code in its own "
        "simulator.",
        "",
        "## In memrt's own wheel",
        "",
        "| package | licence | where |",
        "|---|---|---|",
        *(f"| [{name}]({address}) | {licence} | {where} |" for name, licence, address, where in _COMPILED_IN),
        "",
        "## In the wheel sets for robot computers",
        "",
        "| package | versions | licence | note |",
        "|---|---|---|---|",
    ]
    for name, licences in sorted(found.items()):
        versions = ", ".join(sorted({licence.version for licence in licences}))
        latest = licences[-1]
        note = _NOTES.get(name, "")
        lines.append(f"| [{name}]({latest.address}) | {versions} | {latest.licence} | {note} |")
    return "\n".join(lines) + "\n"


def write_licences(folder: Path) -> None:
    """Write the licence notes of the wheel set `folder` into it."""
    (folder / LICENCES).write_text(third_party([folder]), encoding="utf-8")


if __name__ == "__main__":
    # `make third-party`: python -m memrt.runtime.wheelhouse.licences SET...
    print(third_party(map(Path, sys.argv[1:])), end="")
