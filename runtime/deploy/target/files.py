"""The system calls of a switch, one method each: between any two of them the process may be killed or the power fail.

`put_file` and `put_link` put them together so that a reader finds the old or the new content, never neither, and so
that what has returned is on the disk. The tests replace `Files` by a disk that loses whatever was not synced.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from memrt.runtime.durable_file import sync_file, sync_folder


class Files(Protocol):
    """What a switch asks of the file system."""

    def read(self, path: Path) -> bytes | None:
        """A file's content; None when there is none."""
        ...

    def target(self, path: Path) -> str | None:
        """What a symbolic link says; None when there is none."""
        ...

    def write(self, path: Path, content: bytes) -> None:
        """Make or replace a file, not yet durably."""
        ...

    def sync(self, path: Path) -> None:
        """Bring a file's content to the disk."""
        ...

    def link(self, path: Path, target: str) -> None:
        """Make a symbolic link where there is nothing."""
        ...

    def rename(self, source: Path, destination: Path) -> None:
        """Move, replacing what is there, in one step."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file or link, if it is there."""
        ...

    def sync_folder(self, path: Path) -> None:
        """Bring a folder's entries to the disk."""
        ...


class Disk:
    """The real one."""

    def read(self, path: Path) -> bytes | None:
        """As `Files.read`."""
        return path.read_bytes() if path.is_file() else None

    def target(self, path: Path) -> str | None:
        """As `Files.target`."""
        return os.readlink(path) if path.is_symlink() else None

    def write(self, path: Path, content: bytes) -> None:
        """As `Files.write`."""
        path.write_bytes(content)

    def sync(self, path: Path) -> None:
        """As `Files.sync`."""
        sync_file(path)

    def link(self, path: Path, target: str) -> None:
        """As `Files.link`."""
        path.symlink_to(target)

    def rename(self, source: Path, destination: Path) -> None:
        """As `Files.rename`."""
        source.rename(destination)

    def remove(self, path: Path) -> None:
        """As `Files.remove`."""
        path.unlink(missing_ok=True)

    def sync_folder(self, path: Path) -> None:
        """As `Files.sync_folder`."""
        sync_folder(path)


def put_file(files: Files, path: Path, content: bytes) -> None:
    """Give `path` this content, in one step and durably."""
    partial = path.with_name(f".{path.name}.partial")
    files.write(partial, content)
    files.sync(partial)
    files.rename(partial, path)
    files.sync_folder(path.parent)


def put_link(files: Files, path: Path, target: str | None) -> None:
    """Let the link `path` say `target`, or be gone for None, in one step and durably.

    The folder is synced even when the link says so already: a killed process may have left it so, but not on the disk.
    """
    if files.target(path) != target:
        if target is None:
            files.remove(path)
        else:
            partial = path.with_name(f".{path.name}.partial")
            files.remove(partial)
            files.link(partial, target)
            files.rename(partial, path)
    files.sync_folder(path.parent)
