"""The manifest of a bundle: what it must say, how it is written, and the checks that let no other file through."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import msgspec

from memrt.runtime.config import PolicyConfig, policy_to_dict
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest_schemas import in_this_schema
from memrt.runtime.strict_config import convert

MANIFEST = "manifest.json"
SIGNATURE = "signature.json"  # beside the manifest, where a bundle is signed (memrt.runtime.signing)
NOT_YET_PROVEN = "not yet proven on device"  # until the device's own engines have reproduced the golden outputs
# How the weights of all engines are stored, or `mixed` where they differ; the schemes are those of an export's plan.
Precision = Literal["fp32", "fp16", "bf16", "int8", "int4", "fp8", "nvfp4", "mixed"]
OUTSIDE_ITSELF = frozenset({MANIFEST, SIGNATURE})  # what a manifest cannot list
_HASH_BLOCK = 1 << 20  # bytes read at once
_MAX_MANIFEST_BYTES = 4 << 20
MAX_VERSION = 2**53 - 1  # the largest integer that every JSON reader keeps
SHARED = "shared"  # beside bundles: files that several of them hold, each stored once (`shared_name`)


class TensorRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input or output of an engine; -1 marks a dynamic dimension."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class EngineRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One engine: its file, how it was quantised, its inputs and outputs, and what its gate measured."""

    file: str
    precision: str
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    gate: dict[str, Any] = {}


class CpuRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The CPU that engines for ONNX Runtime passed their gates on, by the names of `memrt.runtime.processor`.

    `full_range`: engines whose 8-bit codes fill 8 bits on both sides of a product, which fast kernels of x86 CPUs
    without VNNI cannot add up.
    """

    architecture: str
    instruction_sets: tuple[str, ...]
    full_range: tuple[str, ...]


class FileRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file: its SHA-256 in hex, and its size in bytes; None only where schema 1 wrote the manifest."""

    sha256: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    size: Annotated[int, msgspec.Meta(ge=0)] | None


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of `manifest.json`.

    `version`: the release of the bundle of this name, which a robot never goes back from by itself. `target`: the kind
    of computer it was exported for. `cpu`: what its gates ran on, None for TensorRT and in schema 1. `sources`: hashes
    of the weights and versions of the tools that made it.
    """

    schema_version: int
    name: str
    version: Annotated[int, msgspec.Meta(ge=1, le=MAX_VERSION)]
    policy: PolicyConfig
    precision: Precision
    target: str = "cpu"
    cpu: CpuRecord | None = None
    engines: dict[str, EngineRecord]
    proven_on_device: str = NOT_YET_PROVEN
    files: dict[str, FileRecord]
    sources: dict[str, Any] = {}


def file_record(path: Path) -> FileRecord:
    """What a manifest says of the file at `path`."""
    return FileRecord(sha256=sha256_of(path), size=path.stat().st_size)


def sha256_of(path: Path) -> str:
    """The hex SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def manifest_bytes(manifest: Manifest) -> bytes:
    """The manifest as it is written: sorted keys, two spaces, one final newline; equal manifests, equal bytes."""
    values = msgspec.to_builtins(manifest) | {"policy": policy_to_dict(manifest.policy)}
    return (json.dumps(values, sort_keys=True, indent=2, ensure_ascii=True, allow_nan=False) + "\n").encode("ascii")


def listed_files(root: Path) -> dict[str, Path]:
    """Every file below `root` but the manifest and its signature, by its path in the bundle.

    Raises MemrtError for links and devices.
    """
    found: dict[str, Path] = {}
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise MemrtError(
                f"bundle {root}",
                expected="regular files only",
                found=f"`{relative}` is a link or device",
                fix="replace it by a copy",
            )
        if path.is_file() and relative not in OUTSIDE_ITSELF:
            found[relative] = path
    return found


def manifest_content(root: Path) -> bytes:
    """The bytes of the manifest of the folder `root`. Raises MemrtError when it is missing or too large."""
    path = root / MANIFEST
    if path.is_symlink() or not path.is_file():
        raise MemrtError(
            f"bundle {root}",
            expected=f"a file `{MANIFEST}`",
            found="none",
            fix="export the policy again; an interrupted copy lacks its manifest",
        )
    with path.open("rb") as file:
        content = file.read(_MAX_MANIFEST_BYTES + 1)
    if len(content) > _MAX_MANIFEST_BYTES:
        raise MemrtError(
            f"{path}",
            expected=f"at most {_MAX_MANIFEST_BYTES} bytes",
            found="more",
            fix="export the policy again",
        )
    return content


def parse_manifest(content: bytes, path: Path) -> Manifest:
    """The manifest that `content`, read from `path`, holds; one of schema 1 as this schema (`in_this_schema`).

    Raises MemrtError when it is malformed, of another schema, or names files outside its bundle.
    """
    try:
        values = msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MemrtError(f"{path}", expected="valid JSON", found=error, fix="export the policy again") from error
    values = in_this_schema(values, path)
    manifest: Manifest = convert(values, Manifest, str(path))
    for relative in (*manifest.files, *(engine.file for engine in manifest.engines.values())):
        _check_relative(relative, path)
    for name, engine in manifest.engines.items():
        if engine.file not in manifest.files:
            raise MemrtError(
                f"{path}",
                expected=f"`{engine.file}` of engine `{name}` among `files`",
                found="no such entry",
                fix="export the policy again",
            )
    return manifest


def _check_relative(relative: str, source: Path) -> None:
    """A manifest must not reach outside its folder, nor name one file in two ways."""
    pure = PurePosixPath(relative)
    clean = relative == pure.as_posix() and "\\" not in relative and "\0" not in relative
    if not clean or pure.is_absolute() or ".." in pure.parts or relative in {"", ".", *OUTSIDE_ITSELF}:
        raise MemrtError(
            f"{source}",
            expected="plain paths below the bundle, such as `hl/vision.onnx`",
            found=repr(relative),
            fix="do not use this bundle; export the policy again",
        )


def shared_name(relative: str, record: FileRecord) -> str:
    """What a file is called in the folder `shared`: its SHA-256, and its suffix, by which engines are opened."""
    return record.sha256 + PurePosixPath(relative).suffix


def find_files(root: Path, files: Mapping[str, FileRecord], *, verify: bool) -> dict[str, Path]:
    """Where each of the manifest's `files` lies: below `root`, or by `shared_name` in the folder `shared` beside it.

    Raises MemrtError for a missing or extra file, one of another size and, with `verify`, one whose SHA-256 is another.
    """
    present = listed_files(root)
    for relative in sorted(files.keys() - present.keys()):
        shared = root.absolute().parent / SHARED / shared_name(relative, files[relative])
        if not shared.is_file() or shared.is_symlink():
            raise MemrtError(
                f"bundle {root}",
                expected=f"every file of its manifest, in it or in {shared.parent}",
                found=f"no `{relative}`",
                fix="copy it again; `memrt bundle copy` takes along what a bundle shares with others",
            )
        present[relative] = shared
    if extra := sorted(present.keys() - files.keys()):
        raise MemrtError(
            f"bundle {root}",
            expected="only the files of its manifest",
            found=f"`{extra[0]}`",
            fix="remove it, or export the policy again",
        )
    for relative, record in sorted(files.items()):
        size = present[relative].stat().st_size
        if record.size is not None and size != record.size:
            raise _corrupt(root, relative, f"{record.size} bytes", f"{size} bytes")
    for relative, record in sorted(files.items()) if verify else ():
        if (actual := sha256_of(present[relative])) != record.sha256:
            raise _corrupt(root, relative, f"SHA-256 {record.sha256}", actual)
    return present


def _corrupt(root: Path, relative: str, expected: str, found: str) -> MemrtError:
    return MemrtError(
        f"corrupt file `{relative}` in bundle {root}",
        expected=expected,
        found=found,
        fix="copy the bundle again, or export the policy again",
    )
