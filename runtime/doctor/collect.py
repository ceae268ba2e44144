"""Fills a snapshot from this computer: files, links, devices, tools, packages. Nothing is changed, no device opened.

Whatever is missing, hidden or broken here is missing in the snapshot: the doctor must work on sick computers.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from memrt.runtime.doctor.examine import COMMANDS, DEVICES, FILES, LINKS, PACKAGES
from memrt.runtime.doctor.snapshot import Cuda, Output, Snapshot
from memrt.runtime.engine.cuda import CudaDevice
from memrt.runtime.errors import MemrtError

MAX_FILE_BYTES = 16_384  # of one file; the first processor of /proc/cpuinfo takes 3 kB
MAX_FILES = 4096  # per pattern: cores × values
MAX_OUTPUT = 200_000  # characters; `ldconfig -p` of a desktop prints 100,000
TOOL_SECONDS = 5.0  # nvidia-smi may wake a sleeping GPU first
LIBRARIES = re.compile(r"lib(EGL|GLES|gallium|usb-1|cuda)")  # of the thousands that ldconfig knows
SYSTEM_TOOLS = "/usr/sbin:/sbin"  # where ldconfig is, which a user's PATH leaves out


def collect(
    files: Iterable[str] = FILES,
    links: Iterable[str] = LINKS,
    devices: Iterable[str] = DEVICES,
    commands: Iterable[Sequence[str]] = COMMANDS,
    packages: Iterable[str] = PACKAGES,
) -> Snapshot:
    """What can be seen at once. Measurements, robot and bundle are added by whoever wants them."""
    installed = {name: found for name in packages if (found := _version(name)) is not None}
    return Snapshot(
        machine=platform.machine(),
        python=platform.python_version(),
        files={path: text for path in _matches(files) if (text := _read(path)) is not None},
        links={path: os.path.realpath(path) for path in _matches(links) if os.path.islink(path)},
        devices={path: os.access(path, os.R_OK | os.W_OK) for path in _matches(devices)},
        outputs={command[0]: _kept(command[0], said) for command in commands if (said := run_tool(command))},
        packages=installed,
        providers=_providers() if installed else None,
        cuda=_cuda() if installed else None,
    )


def run_tool(command: Sequence[str], seconds: float = TOOL_SECONDS) -> Output | None:
    """What a tool prints, in English; None where it is not installed or does not answer in time."""
    path = shutil.which(command[0], path=f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_TOOLS}")
    if path is None:
        return None
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            [path, *command[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
            env=environment,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return Output(status=done.returncode, text=done.stdout.decode("utf-8", "replace")[:MAX_OUTPUT])


def _kept(tool: str, output: Output) -> Output:
    if tool != "ldconfig":
        return output
    lines = [line for line in output.text.splitlines() if LIBRARIES.search(line)]
    return Output(status=output.status, text="\n".join(line.partition(" => ")[0].strip() for line in lines))


def _matches(patterns: Iterable[str]) -> list[str]:
    """Existing paths, each once, in the order of the patterns."""
    found: dict[str, None] = {}
    for pattern in patterns:
        paths = sorted(Path("/").glob(pattern.lstrip("/")))[:MAX_FILES] if "*" in pattern else [Path(pattern)]
        found.update((str(path), None) for path in paths if os.path.lexists(path))
    return list(found)


def _read(path: str) -> str | None:
    try:
        with Path(path).open("rb") as file:
            # A device tree's texts end in NUL.
            return file.read(MAX_FILE_BYTES).decode("utf-8", "replace").rstrip("\0")
    except OSError:
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _providers() -> tuple[str, ...] | None:
    """ONNX Runtime's. A broken installation raises what it likes when it is imported."""
    try:
        import onnxruntime  # type: ignore[import-untyped, unused-ignore]

        return tuple(onnxruntime.get_available_providers())
    except Exception:
        return None


def _cuda() -> Cuda | None:
    try:
        gpu = CudaDevice().gpu
    except MemrtError:
        return None
    return Cuda(name=gpu.name, sm=gpu.sm, memory=gpu.memory)
