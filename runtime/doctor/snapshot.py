"""What was seen of one computer, as plain values: all that the domains judge, and all that `--save` writes.

Nothing in it names the computer or its user: no host name, no address but the one that was asked about, no serial
numbers but those of RealSense cameras and of the robot's YAML.
"""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Literal

import msgspec

from memrt.runtime.errors import MemrtError
from memrt.runtime.strict_config import convert

MAX_BYTES = 16 << 20  # of a saved snapshot


class Output(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a tool printed, both streams, and its exit status."""

    status: int
    text: str


class Clock(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """CLOCK_MONOTONIC's resolution and the time of one reading from Python [ns].

    `synchronised`: whether the kernel holds the wall clock for right (adjtimex(2)), None where it does not say.
    """

    resolution_ns: int
    read_ns: float
    synchronised: bool | None = None


class Cuda(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The first GPU as the CUDA driver knows it: compute capability (8.7 is 87), memory in bytes."""

    name: str
    sm: int
    memory: int


class Lateness(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How late the C++ control thread woke at 1 kHz over `seconds` [ms]; `realtime`: it had SCHED_FIFO."""

    seconds: float
    median_ms: float
    p99_ms: float
    max_ms: float
    realtime: bool


class Disk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A folder's file system. `write_mb_s` and `slowest_sync_s` (of 16 MB) are None where nothing was written."""

    folder: str
    file_system: str = ""
    writable: bool
    free_bytes: int
    write_mb_s: float | None = None
    slowest_sync_s: float | None = None


class Network(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Echoes from `host`, 1200 bytes each [ms], and the way there. `error`: why there are none."""

    host: str
    sent: int = 0
    received: int = 0
    median_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0
    error: str = ""
    interface: str = ""
    gateway: str = ""


class CameraFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A camera of the robot's YAML."""

    kind: str
    serial: str | None = None
    path: str | None = None
    width: int = 640
    height: int = 480
    fps: int = 30


class RobotFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What matters here of a robot's YAML. `host_is`: the arm itself, or the computer of its node."""

    name: str
    simulated: bool = False
    enforces_realtime: bool = False
    host_is: Literal["arm", "node"] = "arm"
    cameras: dict[str, CameraFacts] = {}


class BundleFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What matters here of a bundle. `refused`: why it cannot be opened, in MemrtError's words; the rest is then empty.

    `full_range`: engines that want VNNI (the manifest's `cpu`). `sm`: compute capabilities that the target's GPUs may
    have. `proven`: None where it could not be found out, for the reason in `unproven`. `signature`: who vouches for it.
    """

    path: str
    refused: str = ""
    target: str = ""
    backend: str = ""
    precision: str = ""
    full_range: tuple[str, ...] = ()
    sm: tuple[int, ...] = ()
    engine_bytes: int = 0
    proven: bool | None = None
    unproven: str = ""
    signature: str = ""
    signed: bool = False


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One computer. A file, link, tool or package that is not there is missing; "" is an empty file.

    `devices`: device files, and whether this user may read and write them. `providers`: ONNX Runtime's, None without
    it. `realsense`: what librealsense lists, None without it.
    """

    schema_version: Literal[1] = 1
    machine: str = ""
    python: str = ""
    files: dict[str, str] = {}
    links: dict[str, str] = {}
    devices: dict[str, bool] = {}
    outputs: dict[str, Output] = {}
    packages: dict[str, str] = {}
    providers: tuple[str, ...] | None = None
    realsense: tuple[dict[str, str], ...] | None = None
    cuda: Cuda | None = None
    clock: Clock | None = None
    lateness: Lateness | None = None
    disk: Disk | None = None
    network: Network | None = None
    robot: RobotFacts | None = None
    bundle: BundleFacts | None = None

    def text(self, path: str) -> str:
        """A file's text without the last newline; "" for a file that is not there."""
        return self.files.get(path, "").strip()

    def matching(self, pattern: str) -> dict[str, str]:
        """The files whose paths match, and their texts, in natural order."""
        found = fnmatch.filter(self.files, pattern)
        return {path: self.files[path].strip() for path in sorted(found, key=_natural)}

    def printed(self, tool: str) -> str:
        """What a tool printed that was there and succeeded; else ""."""
        output = self.outputs.get(tool)
        return output.text if output is not None and output.status == 0 else ""


def number(text: str) -> float | None:
    """The number that `text` begins with, such as `350.00 W`; None where there is none."""
    match = re.match(r"-?\d+(\.\d+)?", text.strip(), re.ASCII)
    return float(match.group()) if match else None


def _natural(path: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() and part.isascii() else (-1, part) for part in re.split(r"(\d+)", path)]


def save(snapshot: Snapshot, path: Path) -> None:
    """Write `snapshot` as JSON. Raises MemrtError where nothing can be written."""
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(snapshot, order="sorted"), indent=1) + b"\n")
    except OSError as problem:
        raise MemrtError(
            f"--save {path}", expected="a file that can be written", found=problem.strerror, fix="choose another"
        ) from problem


def load(path: Path) -> Snapshot:
    """Read what `save` wrote. Raises MemrtError for anything else."""
    fix = "give a file that `memrt doctor --save FILE` wrote, with the same version of memrt"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise MemrtError(f"{path}", expected=f"at most {MAX_BYTES} bytes", found=path.stat().st_size, fix=fix)
        values = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError) as problem:
        raise MemrtError(f"{path}", expected="a snapshot in JSON", found=problem, fix=fix) from problem
    if not isinstance(values, dict):
        raise MemrtError(f"{path}", expected="a JSON object", found=type(values).__name__, fix=fix)
    snapshot: Snapshot = convert(values, Snapshot, str(path))
    return snapshot
