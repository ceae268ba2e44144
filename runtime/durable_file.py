"""Writes a file so that whoever reads it finds the old content or the new one, never a part; after a power loss too."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_durably(path: Path, content: bytes, *, mode: int = 0o644, folder: Path | None = None) -> None:
    """Replace the file at `path` by `content` in one step. Raises OSError, and leaves nothing else behind.

    `folder` is where the new file waits for its name, on the same file system: by default that of `path`. Give another
    where readers refuse files that they do not know, as in a bundle.
    """
    descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=folder or path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Make a file's content survive a power loss. Raises OSError."""
    _sync(path, os.O_RDONLY)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power loss. Raises OSError."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
