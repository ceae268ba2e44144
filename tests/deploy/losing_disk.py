"""A file system in memory that dies when told to, and forgets at will what was not synced: what POSIX permits.

Each folder keeps, per name, what is on the disk, and the changes since it was last synced. A power failure keeps any
subset of those changes, and of an unsynced file any beginning. A killed process loses nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


class DiedError(Exception):
    """The process was killed, or the power failed, before this call."""


@dataclass(eq=False)
class File:
    content: bytes = b""
    synced: bytes | None = None  # None: nothing of it is on the disk yet


Node = File | str  # a string is what a link says
Change = dict[str, Node | None]  # None: the name is gone


@dataclass
class Folder:
    durable: dict[str, Node] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)

    def entries(self) -> dict[str, Node]:
        return apply(self.durable, self.changes)


def apply(entries: dict[str, Node], changes: list[Change]) -> dict[str, Node]:
    entries = dict(entries)
    for change in changes:
        for name, node in change.items():
            if node is None:
                entries.pop(name, None)
            else:
                entries[name] = node
    return entries


class LosingDisk:
    """Implements `memrt.runtime.deploy.target.files.Files`. `calls_left` counts down to the death; None: it lives."""

    def __init__(self) -> None:
        self._folders: dict[Path, Folder] = {}
        self.calls_left: int | None = None

    def power_failure(self, keep: Callable[[bool], bool], length: Callable[[int], int]) -> None:
        """`keep(last)` decides on each unsynced change of a folder, `length` how much of an unsynced file is left."""
        files = [node for folder in self._folders.values() for node in folder.entries().values()]
        for folder in self._folders.values():
            folder.durable = apply(
                folder.durable, [change for change in folder.changes if keep(change is folder.changes[-1])]
            )
            folder.changes = []
            files += folder.durable.values()
        for node in {id(node): node for node in files if isinstance(node, File)}.values():
            if node.synced != node.content:
                node.content = node.content[: length(len(node.content))]
                node.synced = node.content

    def read(self, path: Path) -> bytes | None:
        node = self._folder(path).entries().get(path.name)
        return node.content if isinstance(node, File) else None

    def target(self, path: Path) -> str | None:
        node = self._folder(path).entries().get(path.name)
        return node if isinstance(node, str) else None

    def write(self, path: Path, content: bytes) -> None:
        node = self._folder(path).entries().get(path.name)
        if not isinstance(node, File):
            node = File()
            self._change(path, {path.name: node})
        node.content = content

    def sync(self, path: Path) -> None:
        node = self._folder(path).entries()[path.name]
        assert isinstance(node, File)
        node.synced = node.content

    def link(self, path: Path, target: str) -> None:
        assert path.name not in self._folder(path).entries(), "EEXIST"
        self._change(path, {path.name: target})

    def rename(self, source: Path, destination: Path) -> None:
        assert source.parent == destination.parent
        node = self._folder(source).entries()[source.name]
        self._change(source, {source.name: None, destination.name: node})

    def remove(self, path: Path) -> None:
        self._folder(path)
        self._change(path, {path.name: None})

    def sync_folder(self, path: Path) -> None:
        folder = self._folder(path / "any")
        folder.durable, folder.changes = folder.entries(), []

    def _change(self, path: Path, change: Change) -> None:
        self._folders[path.parent].changes.append(change)

    def _folder(self, path: Path) -> Folder:
        if self.calls_left is not None:
            if self.calls_left == 0:
                raise DiedError
            self.calls_left -= 1
        return self._folders.setdefault(path.parent, Folder())
