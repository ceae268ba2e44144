"""The bundle: one folder that holds a policy ready to run, and a manifest that vouches for every file in it.

`manifest.json` names each file with its SHA-256, so a changed, missing or added file is refused before anything is
loaded. Bundles that lie side by side may share files, kept once in a folder beside them (`runtime/shared_files.py`):
what the manifest says and what is checked stay the same. The manifest holds no time and no path of the machine that
wrote it: the same input gives the same bytes. It is written last, then the whole folder appears in one step.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from memrt.runtime.config import PolicyConfig
from memrt.runtime.durable_file import sync_folder, write_durably
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import (
    MANIFEST,
    SIGNATURE,
    CpuRecord,
    EngineRecord,
    FileRecord,
    Manifest,
    Precision,
    TensorRecord,
    file_record,
    find_files,
    listed_files,
    manifest_bytes,
    manifest_content,
    parse_manifest,
    sha256_of,
)
from memrt.runtime.manifest_schemas import SCHEMA_VERSION

__all__ = [
    "Bundle",
    "CpuRecord",
    "EngineRecord",
    "FileRecord",
    "Manifest",
    "Precision",
    "TensorRecord",
    "load_bundle",
    "require_halves",
    "sha256_of",
    "write_bundle",
]

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2  # linux/fs.h: swap two paths in one step


@dataclass(frozen=True, slots=True)
class Bundle:
    """A loaded bundle. Only files that the manifest names can be reached; `files` says where they lie.

    `sha256` is the hash of the manifest as it was read, which vouches for every file: what names this bundle in caches,
    proofs and signatures. Scripted policies, which have no files, have none.
    """

    path: Path
    manifest: Manifest
    files: Mapping[str, Path]
    sha256: str

    @property
    def policy(self) -> PolicyConfig:
        """The settings the bundle was exported with."""
        return self.manifest.policy

    def file(self, relative: str) -> Path:
        """The path of one file, e.g. `hl/vision.onnx`. Raises MemrtError when the manifest does not name it."""
        if relative not in self.files:
            raise MemrtError(
                f"bundle {self.path} has no file `{relative}`",
                expected=f"one of {', '.join(sorted(self.files))}",
                found=f"`{relative}`",
                fix="export the policy again with this version of memrt",
            )
        return self.files[relative]

    def folder(self, name: str) -> Callable[[str], Path]:
        """Finds files of one of the bundle's folders by name: `bundle.folder("hl")("config.json")`, as `file` does."""
        return lambda file: self.file(f"{name}/{file}")


def require_halves(bundle: Bundle, *halves: str) -> None:
    """Raises MemrtError unless the bundle has engines of the `halves`: `hl`, `ll`, by default all its policy needs.

    An export of one checkpoint alone holds one half. It can be built, proven and measured, but drives no robot.
    """
    if not halves:
        halves = ("hl", "ll") if bundle.policy.high_level.vlm_on_board else ("ll",)
    present = {name.partition("/")[0] for name in bundle.manifest.engines}
    if set(halves) - present:
        raise MemrtError(
            f"bundle {bundle.path} is not a whole policy",
            expected=f"engines of {' and '.join(halves)} (hl: the high level, ll: the action expert)",
            found=f"only {' and '.join(sorted(present))}" if present else "no engines",
            fix="export both halves into one bundle: name both checkpoints in the policy's YAML",
        )


def load_bundle(path: str | Path, verify: bool = True) -> Bundle:
    """Open a bundle. `verify` hashes every file; without it only the set of files is checked.

    Raises MemrtError for a missing folder or manifest, another schema, and a missing, extra or corrupt file.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise MemrtError(
            f"bundle {root}",
            expected="a bundle folder",
            found="a file" if root.exists() else "nothing there",
            fix="give the folder that `memrt export POLICY.yaml -o BUNDLE` wrote",
        )
    content = manifest_content(root)
    manifest = parse_manifest(content, root / MANIFEST)
    files = find_files(root, manifest.files, verify=verify)
    return Bundle(root, manifest, files, hashlib.sha256(content).hexdigest())


def write_bundle(
    staging: Path,
    destination: Path,
    *,
    policy: PolicyConfig,
    precision: Precision,
    engines: Mapping[str, EngineRecord],
    sources: Mapping[str, Any] | None = None,
    target: str = "cpu",
    cpu: CpuRecord | None = None,
    version: int = 1,
) -> Bundle:
    """Add the manifest to `staging` and move the folder to `destination`, on the same file system, in one step.

    `version` is the release, which signing may set anew. An older bundle at `destination` is replaced; any other
    existing folder is refused. `staging` is gone afterwards.
    """
    _check_destination(staging, destination)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=policy.name,
        version=version,
        policy=policy,
        precision=precision,
        target=target,
        cpu=cpu,
        engines=dict(engines),
        files={relative: file_record(path) for relative, path in listed_files(staging).items()},
        sources=dict(sources or {}),
    )
    content = manifest_bytes(manifest)
    write_durably(staging / MANIFEST, content)
    load_bundle(staging, verify=False)  # what would be refused on the robot is refused here
    destination.parent.mkdir(parents=True, exist_ok=True)
    staging.chmod(0o755)  # temporary folders are the owner's alone; a robot's service runs as another user
    if destination.exists():
        _exchange(staging, destination)
        shutil.rmtree(staging)
    else:
        staging.rename(destination)
    sync_folder(destination.parent)
    files = {relative: destination / relative for relative in manifest.files}
    return Bundle(destination, manifest, files, hashlib.sha256(content).hexdigest())


def rewrite_manifest(bundle: Bundle, manifest: Manifest) -> Bundle:
    """Give a bundle, loaded with `verify`, another manifest for the same files, in the present schema and in one step.

    A signature, which would be of the old one, goes first. A manifest that says the same is left as it is. Raises
    OSError where nothing can be written.
    """
    files = {
        relative: FileRecord(sha256=record.sha256, size=bundle.files[relative].stat().st_size)
        for relative, record in bundle.manifest.files.items()
    }
    manifest = msgspec.structs.replace(manifest, files=files)
    content = manifest_bytes(manifest)
    if hashlib.sha256(content).hexdigest() == bundle.sha256:
        return bundle
    (bundle.path / SIGNATURE).unlink(missing_ok=True)
    write_durably(bundle.path / MANIFEST, content, folder=bundle.path.resolve().parent)
    return load_bundle(bundle.path, verify=False)


def _check_destination(staging: Path, destination: Path) -> None:
    if not staging.is_dir():
        raise MemrtError(f"staging folder {staging}", expected="a folder", found="none", fix="stage the files first")
    if destination.is_symlink() or (destination.exists() and not (destination / MANIFEST).is_file()):
        raise MemrtError(
            f"output {destination}",
            expected="a new folder or an older bundle",
            found="something else, which will not be overwritten",
            fix="choose another output, or remove it yourself",
        )


def _exchange(first: Path, second: Path) -> None:
    """Swap two folders so that a reader finds the old or the new one, never neither (renameat2, Linux 3.15)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return
    code = ctypes.get_errno()
    if code not in {errno.EINVAL, errno.ENOSYS}:
        raise OSError(code, os.strerror(code), str(second))
    # A file system without exchange (some network and overlay mounts): two steps, the old one kept until the second.
    aside = second.with_name(f".{second.name}.replaced")
    second.rename(aside)
    first.rename(second)
    aside.rename(first)
