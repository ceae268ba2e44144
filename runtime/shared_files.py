"""Bundles that lie side by side and hold the same files: each of those is stored once, in the folder `shared`.

The reference bundles are one base with an adapter each: vision tower, embedding and the whole low level are the same
bytes in all of them. Their manifests list every file all the same, and every file is checked when a bundle is opened.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path

from memrt.runtime.bundle import Bundle, load_bundle
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import MANIFEST, OUTSIDE_ITSELF, SHARED, shared_name

SMALLEST = 1 << 14  # bytes of a file that is worth it: settings stay where a reader looks for them


def share_files(folder: Path) -> int:
    """Move what two or more bundles in `folder` hold to `folder/shared`; returns how many bytes that saved.

    Files in `shared` that no bundle needs any more are removed. Every bundle is checked first and stays valid whenever
    this is interrupted. Raises MemrtError for a broken bundle, and for one whose engines keep weights in a second file,
    which is found by its name beside the first.
    """
    bundles = [load_bundle(path.parent) for path in sorted(folder.glob(f"*/{MANIFEST}"))]
    if not bundles:
        raise MemrtError(f"folder {folder}", expected="bundles in it", found="none", fix="name their common folder")
    for bundle in bundles:
        _refuse_split_engines(bundle)
    holders = Counter(name for bundle in bundles for name in _names(bundle))
    shared, saved = folder / SHARED, 0
    for bundle in bundles:
        for relative, record in bundle.manifest.files.items():
            here, name = bundle.path / relative, shared_name(relative, record)
            if holders[name] < 2 or not here.is_file() or here.stat().st_size < SMALLEST:
                continue
            if (shared / name).exists():
                saved += here.stat().st_size
                here.unlink()
            else:
                shared.mkdir(exist_ok=True)
                here.rename(shared / name)
            _remove_empty(here.parent, bundle.path)
    needed = {
        shared_name(file, record)
        for bundle in bundles
        for file, record in bundle.manifest.files.items()
        if not (bundle.path / file).exists()
    }
    for path in shared.glob("*"):
        if path.name not in needed:
            path.unlink()
    return saved


def copy_bundle(bundle: Bundle, destination: Path) -> Bundle:
    """A copy that holds all of its files itself, to be taken anywhere; manifest, hash and signature are the same.

    Raises MemrtError when there is something at `destination` already.
    """
    if destination.exists():
        raise MemrtError(
            f"copy of bundle {bundle.path}",
            expected="a new folder",
            found=f"{destination} is there already",
            fix="name another folder, or remove it yourself",
        )
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{destination.name}.", dir=destination.parent) as staging:
        whole = Path(staging) / "bundle"
        for relative, source in bundle.files.items():
            (whole / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, whole / relative)
        for name in OUTSIDE_ITSELF:
            if (bundle.path / name).is_file():
                shutil.copyfile(bundle.path / name, whole / name)
        whole.rename(destination)
    return load_bundle(destination)


def _names(bundle: Bundle) -> set[str]:
    return {shared_name(file, record) for file, record in bundle.manifest.files.items()}


def _refuse_split_engines(bundle: Bundle) -> None:
    for engine in bundle.manifest.engines.values():
        beside = [name for name in bundle.manifest.files if name.startswith(f"{engine.file}.")]
        if beside:
            raise MemrtError(
                f"bundle {bundle.path}",
                expected="engines of one file each",
                found=f"`{engine.file}` with `{beside[0]}` beside it",
                fix="keep this bundle in another folder: it shares nothing",
            )


def _remove_empty(folder: Path, root: Path) -> None:
    """Drop `folder` when nothing is left in it: git keeps no empty folders, and neither does a bundle."""
    while folder != root and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
