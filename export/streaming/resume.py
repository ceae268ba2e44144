"""What an interrupted export has finished: engines and what the ones after them need, in the folder it works in.

The folder lies beside the output (`.NAME.partial`) and carries a key of everything the bytes depend on. An export with
the same key goes on behind the last finished engine; any other key begins anew. Nothing appears under the output's own
name before the end.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from memrt.export.sensitivity import LayerDamage
from memrt.export.streaming.made import Made
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import TensorRecord

KEY = "key"
ARRAYS = ("calibration", "reference")  # lists of tuples of tensors
NAMED = ("feeds", "expected", "found")  # lists of arrays by name


class WorkFolder:
    """The folder of one export under way."""

    def __init__(self, out: Path, inputs: Mapping[str, Any]) -> None:
        """`inputs` is all that the export's bytes depend on, as JSON values.

        Raises MemrtError when another export to the same output is running.
        """
        self.root = out.parent / f".{out.name}.partial"
        self.staging = self.root / "bundle"
        key = hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()
        self._lock = _lock(out.parent / f".{out.name}.lock")
        known = self.root / KEY
        self.resumed = known.is_file() and known.read_text(encoding="ascii") == key
        if not self.resumed:
            shutil.rmtree(self.root, ignore_errors=True)
            self.staging.mkdir(parents=True)
            known.write_text(key, encoding="ascii")

    def finished(self, name: str) -> Made | None:
        """The engine `name` if an earlier run finished it."""
        folder = self._folder(name)
        if not (folder / "made.json").is_file():
            return None
        values = msgspec.json.decode((folder / "made.json").read_bytes())
        tensors: dict[str, list[Any]] = {}
        for group in (*ARRAYS, *NAMED):
            with np.load(folder / f"{group}.npz", allow_pickle=False) as file:
                tensors[group] = _unpacked(file, named=group in NAMED)
        return Made(
            graph=self.staging / values["graph"],
            proof=self.staging / values["proof"],
            record=values["record"],
            audit=values["audit"],
            damage=[msgspec.convert(damage, LayerDamage) for damage in values["damage"]],
            dims={name: tuple(dims) for name, dims in values["dims"].items()},
            inputs=msgspec.convert(values["inputs"], tuple[TensorRecord, ...]),
            outputs=msgspec.convert(values["outputs"], tuple[TensorRecord, ...]),
            **tensors,
        )

    def finish(self, name: str, made: Made) -> None:
        """Keep the engine: the JSON file comes last, and with it the engine counts as finished."""
        folder = self._folder(name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for group in (*ARRAYS, *NAMED):
            np.savez(folder / f"{group}.npz", **_packed(getattr(made, group)))  # type: ignore[arg-type, unused-ignore]
        kept = {field.name for field in fields(Made)} - {*ARRAYS, *NAMED, "graph", "proof", "damage"}
        values = {key: getattr(made, key) for key in sorted(kept)}
        values |= {
            "graph": made.graph.relative_to(self.staging).as_posix(),
            "proof": made.proof.relative_to(self.staging).as_posix(),
            "damage": [msgspec.to_builtins(damage) for damage in made.damage],
        }
        partial = folder / "made.partial"
        partial.write_bytes(msgspec.json.encode(values))
        partial.rename(folder / "made.json")

    def note(self, name: str) -> dict[str, Any] | None:
        """A small result that an earlier run left under `name`."""
        path = self._folder(name) / "note.json"
        found: dict[str, Any] | None = msgspec.json.decode(path.read_bytes()) if path.is_file() else None
        return found

    def leave_note(self, name: str, values: Mapping[str, Any]) -> None:
        """Keep a small result."""
        folder = self._folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "note.partial").write_bytes(msgspec.json.encode(values))
        (folder / "note.partial").rename(folder / "note.json")

    def remove(self) -> None:
        """The export is done: nothing is left to go on from."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Let another export work towards the same output; a folder without results is not worth keeping."""
        if not (self.root / "finished").is_dir():
            shutil.rmtree(self.root, ignore_errors=True)
        self._lock.unlink(missing_ok=True)

    def _folder(self, name: str) -> Path:
        return self.root / "finished" / name.replace("/", "_")


def _lock(path: Path) -> Path:
    """One export per output: two would write the same files. A lock whose process is gone is taken over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        holder = int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        holder = 0
    if holder and holder != os.getpid() and Path(f"/proc/{holder}").exists():
        raise MemrtError(
            "another export is writing this bundle",
            expected=f"no running export to {path.name.removeprefix('.').removesuffix('.lock')}",
            found=f"process {holder}",
            fix="wait for it, stop it, or choose another output",
        )
    path.write_text(str(os.getpid()), encoding="ascii")
    return path


def _packed(group: list[Any]) -> dict[str, Any]:
    arrays = {}
    for index, item in enumerate(group):
        entries = item.items() if isinstance(item, Mapping) else enumerate(item)
        arrays.update({f"{index}/{key}": np.asarray(value) for key, value in entries})
    return arrays


def _unpacked(file: Any, *, named: bool) -> list[Any]:
    items: dict[int, dict[str, Any]] = {}
    for entry in file.files:
        index, key = entry.split("/", 1)
        items.setdefault(int(index), {})[key] = file[entry]
    ordered = [items[index] for index in sorted(items)]
    if named:
        return ordered
    return [tuple(torch.from_numpy(item[str(i)]) for i in range(len(item))) for item in ordered]
