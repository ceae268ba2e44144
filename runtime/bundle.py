"""The bundle: one folder that holds a policy ready to run, and a manifest that vouches for every file in it.

`manifest.json` names each file with its SHA-256, so a changed, missing or added file is refused before anything is
loaded. Bundles that lie side by side may share files, kept once in a folder beside them (`runtime/shared_files.py`):
what the manifest says and what is checked stay the same. The manifest holds no time and no path of the machine that
wrote it: the same input gives the same bytes. It is written last, then the whole folder appears in one step.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from memrt.runtime.config import PolicyConfig
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    EngineRecord,
    Manifest,
    Precision,
    TensorRecord,
    find_files,
    listed_files,
    manifest_bytes,
    read_manifest,
    sha256_of,
)

__all__ = [
    "Bundle",
    "EngineRecord",
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
    """A loaded bundle. Only files that the manifest names can be reached; `files` says where they lie."""

    path: Path
    manifest: Manifest
    files: Mapping[str, Path]

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
    manifest = read_manifest(root)
    return Bundle(root, manifest, find_files(root, manifest.files, verify=verify))


def write_bundle(
    staging: Path,
    destination: Path,
    *,
    policy: PolicyConfig,
    precision: Precision,
    engines: Mapping[str, EngineRecord],
    sources: Mapping[str, Any] | None = None,
    target: str = "cpu",
) -> Bundle:
    """Add the manifest to `staging` and move the folder to `destination`, on the same file system, in one step.

    An older bundle at `destination` is replaced; any other existing folder is refused. `staging` is gone afterwards.
    """
    _check_destination(staging, destination)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=policy.name,
        policy=policy,
        precision=precision,
        target=target,
        engines=dict(engines),
        files={relative: sha256_of(path) for relative, path in listed_files(staging).items()},
        sources=dict(sources or {}),
    )
    _write_durably(staging / MANIFEST, manifest_bytes(manifest))
    load_bundle(staging, verify=False)  # what would be refused on the robot is refused here
    destination.parent.mkdir(parents=True, exist_ok=True)
    staging.chmod(0o755)  # temporary folders are the owner's alone; a robot's service runs as another user
    if destination.exists():
        _exchange(staging, destination)
        shutil.rmtree(staging)
    else:
        staging.rename(destination)
    _sync_folder(destination.parent)
    return Bundle(destination, manifest, {relative: destination / relative for relative in manifest.files})


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


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
