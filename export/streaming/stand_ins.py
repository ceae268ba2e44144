"""Engines that stand in for others while a session runs over recorded moments: they know, listen, or ask torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from memrt.export.streaming.job import named
from memrt.export.torch_callable import torch_callable
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import TensorSpec

Array = NDArray[Any]
Feed = dict[str, Array]


class StandIn:
    """What all of them share: the `Engine` protocol. `inputs` says no more than the names."""

    def __init__(self, inputs: Sequence[str] = ()) -> None:
        self.inputs = tuple(TensorSpec(name=name, dtype="float32", shape=()) for name in inputs)
        self.outputs: tuple[TensorSpec, ...] = ()

    def close(self) -> None:
        """Nothing to release."""


class Listening(StandIn):
    """Keeps what it is fed and answers with what `answer` makes of it.

    `kept` are the inputs worth keeping, by default all: a decoder's K/V cache comes with every token, 200 MB each time.
    """

    def __init__(
        self,
        answer: Callable[[Mapping[str, Array]], Feed],
        inputs: Sequence[str] = (),
        kept: Collection[str] | None = None,
    ) -> None:
        super().__init__(inputs)
        self.heard: list[Feed] = []
        self._answer, self._kept = answer, kept

    def run(self, feeds: Mapping[str, Array]) -> Feed:
        """The answer; the feed is copied, since sessions use their buffers again."""
        kept = feeds.keys() if self._kept is None else feeds.keys() & set(self._kept)
        self.heard.append({name: np.array(feeds[name]) for name in sorted(kept)})
        return self._answer(feeds)


class Known(StandIn):
    """Answers from outputs that were computed before, found by the bytes of the first input."""

    def __init__(self, known: Mapping[bytes, Feed]) -> None:
        super().__init__()
        self._known = dict(known)

    @classmethod
    def of(cls, feeds: Sequence[Feed], outputs: Sequence[Sequence[Tensor]], names: Sequence[str]) -> Known:
        """Outputs in the order of the feeds."""
        return cls({_key(feed): dict(named(names, values)) for feed, values in zip(feeds, outputs, strict=True)})

    def run(self, feeds: Mapping[str, Array]) -> Feed:
        """The outputs that belong to the feed. Raises MemrtError for one that was never computed."""
        found = self._known.get(_key(feeds))
        if found is None:
            raise MemrtError(
                "a recorded moment changed between two passes of an export",
                expected=f"one of {len(self._known)} known feeds",
                found=f"another {next(iter(feeds))}",
                fix="report it: preprocessing must not depend on what ran before",
            )
        return found


class TorchEngine(StandIn):
    """A torch module with an engine's face. Of the calls since `begin`, those in `kept` are kept in `heard`."""

    def __init__(
        self, module: nn.Module, inputs: Sequence[str], outputs: Sequence[str], kept: Collection[int] = ()
    ) -> None:
        super().__init__(inputs)
        self.heard: list[Feed] = []
        self._compute, self._kept = torch_callable(module, inputs, outputs), kept
        self._calls = 0

    def begin(self) -> None:
        """A new recorded moment starts."""
        self._calls = 0

    def run(self, feeds: Mapping[str, Array]) -> Feed:
        """The module's outputs."""
        if self._calls in self._kept:
            self.heard.append({name: np.array(value) for name, value in feeds.items()})
        self._calls += 1
        return self._compute(feeds)


def _key(feed: Mapping[str, Array]) -> bytes:
    return next(iter(feed.values())).tobytes()
