"""Stored episodes: one file of JSON lines per cell, small enough to be committed.

The first line is the cell's settings, `{"by": …}` lines say which versions and hardware played the episodes after them,
and every other line is one episode. Lines are appended as episodes end and are never changed: a process that is killed
leaves at most a torn last line, which the next one cuts off. Several evaluations may use one folder, not one cell.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from memrt.runtime.errors import MemrtError
from memrt.sim.suite.cells import Cell, Episode, Settings

SUFFIX = ".jsonl"


@dataclass(frozen=True, slots=True)
class Stored:
    """A cell's file: `episodes` by seed, `by` in the order in which they played."""

    settings: Settings
    episodes: dict[int, Episode] = field(default_factory=dict)
    by: list[dict[str, Any]] = field(default_factory=list)


def cell_file(folder: Path, cell: Cell) -> Path:
    """Where a cell's episodes lie."""
    return folder / cell.task / f"{cell.policy}-{cell.precision}-{cell.mode}{SUFFIX}"


def read_cell(path: Path) -> Stored | None:
    """A cell's file, without a torn last line; None where nothing is stored. Raises MemrtError for a damaged one."""
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return None
    if not lines:
        return None
    try:
        stored = Stored(msgspec.json.decode(lines[0], type=Settings))
        for line in lines[1:]:
            if line.startswith(b'{"by":'):
                stored.by.append(json.loads(line)["by"])
            else:
                episode = msgspec.json.decode(line, type=Episode)
                stored.episodes.setdefault(episode.seed, episode)
    except (msgspec.DecodeError, ValueError) as error:
        raise MemrtError(
            f"stored results {path}",
            expected="JSON lines of this version of memrt",
            found=str(error),
            fix="restore the file, or remove it to play its episodes again",
        ) from error
    return stored


def stored_cells(folder: Path) -> dict[Cell, Stored]:
    """Every cell of a folder that holds at least one episode."""
    found = {}
    for path in sorted(folder.glob(f"*/*{SUFFIX}")):
        stored = read_cell(path)
        if stored is not None and stored.episodes:
            s = stored.settings
            found[Cell(s.task, s.policy, s.precision, s.mode)] = stored
    return found


class CellWriter:
    """Appends to a cell's file, which nobody else may do meanwhile. A context manager."""

    def __init__(self, path: Path, settings: Settings) -> None:
        """Begin or continue the file; one of other settings is begun anew. Raises MemrtError when another writes it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise MemrtError(
                f"stored results {path}",
                expected="no other evaluation of this cell",
                found="one that is writing it",
                fix="let it end, or give another --results folder",
            ) from error
        stored = read_cell(path)
        if stored is None or stored.settings != settings:
            os.ftruncate(self._file, 0)
            self._by: Mapping[str, Any] | None = None
            self._append(msgspec.json.encode(settings))
        else:
            os.ftruncate(self._file, path.read_bytes().rfind(b"\n") + 1)
            self._by = stored.by[-1] if stored.by else None

    def add(self, episode: Episode, by: Mapping[str, Any]) -> None:
        """Store an episode; it is on disk when this returns."""
        lines = msgspec.json.encode(episode)
        if by != self._by:
            lines = json.dumps({"by": by}, separators=(",", ":")).encode() + b"\n" + lines
            self._by = dict(by)
        self._append(lines)

    def _append(self, lines: bytes) -> None:
        os.write(self._file, lines + b"\n")
        os.fsync(self._file)

    def __enter__(self) -> CellWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)
