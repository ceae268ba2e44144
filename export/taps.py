"""Records what engines are really fed: the runtime runs over recorded moments, and its engines are listened to.

Calibration and gates thus see exactly the inputs that the robot will produce (the same tokenizer, resizing, cache and
denoising loop), with no second implementation of any of them to keep in step. Feeds lie on disk, one file each: a
decoder's feed holds a whole K/V cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from memrt.runtime.types import Engine, TensorSpec

Feed = dict[str, NDArray[Any]]
MAX_FEEDS = 1024  # of one engine and role


class FeedStore(Sequence[Feed]):
    """Feeds of one engine in a folder, read back one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: list[Path] = []

    def append(self, feed: Mapping[str, NDArray[Any]]) -> None:
        """Write one feed; ignored once `MAX_FEEDS` are held."""
        if len(self._paths) >= MAX_FEEDS:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{len(self._paths):05d}.npz"
        np.savez(path, **{name: np.asarray(value) for name, value in feed.items()})  # type: ignore[arg-type, unused-ignore]
        self._paths.append(path)

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> Feed: ...
    @overload
    def __getitem__(self, index: slice) -> list[Feed]: ...
    def __getitem__(self, index: int | slice) -> Feed | list[Feed]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        with np.load(self._paths[index], allow_pickle=False) as file:
            return {name: file[name] for name in file.files}


class TappedEngine:
    """An engine that also writes chosen feeds to a store. Implements `memrt.runtime.types.Engine`.

    Calls are counted from `begin()`, which the caller makes before each recorded moment; `calls` says which of them
    are kept (a denoising loop or an answer makes many nearly equal ones). With `distinct` a feed is kept once, however
    often it comes again.
    """

    def __init__(self, engine: Engine, calls: Collection[int] | None = None, *, distinct: bool = False) -> None:
        self._engine = engine
        self._calls = calls
        self._seen: set[bytes] | None = set() if distinct else None
        self._count = 0
        self.store: FeedStore | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The engine's inputs."""
        return self._engine.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The engine's outputs."""
        return self._engine.outputs

    def begin(self) -> None:
        """A new recorded moment starts."""
        self._count = 0

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the engine; keep the feed if it is one of the chosen calls."""
        wanted = self._calls is None or self._count in self._calls
        if self.store is not None and wanted and self._is_new(feeds):
            self.store.append(feeds)
        self._count += 1
        return self._engine.run(feeds)

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()

    def _is_new(self, feeds: Mapping[str, NDArray[Any]]) -> bool:
        if self._seen is None:
            return True
        digest = hashlib.sha256()
        for name in sorted(feeds):
            digest.update(np.ascontiguousarray(feeds[name]).tobytes())
        before = len(self._seen)
        self._seen.add(digest.digest())
        return len(self._seen) > before
