"""What a recording says of a run but its pixels, sorted by kind and bounded in number."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from memrt.runtime.clock import NS_PER_S
from memrt.runtime.recording.messages import (
    Command,
    HighLevelAnswer,
    HighLevelRequest,
    Log,
    LowLevelMessage,
    Memory,
)
from memrt.runtime.recording.reader import Recording, Summary, is_frame
from memrt.runtime.report.run.seams import Seams

MAX_CALLS = 4_000  # of the high level: an hour at its usual pace
MAX_CHUNKS = 20_000  # two hours of chunks, a quarter of an hour of `every_tick` at 20 Hz
MAX_EVENTS = 4_000
MAX_TEXT = 4 << 20  # characters of prompts and replies together


class LowLevelCall(NamedTuple):
    """When a chunk was computed, and for how long."""

    call: int
    t_ns: int
    duration_ns: int
    stages: dict[str, int]


@dataclass(slots=True)
class Told:
    """A run's messages. `left_out` counts, by kind, what came after a bound was reached; `characters` of prompts
    and replies were asked for."""

    run: dict[str, str]
    summary: Summary
    calls: list[tuple[HighLevelRequest, HighLevelAnswer, Memory | None]] = field(default_factory=list)
    low_level: list[LowLevelCall] = field(default_factory=list)
    seams: Seams = field(default_factory=Seams)
    events: list[Log] = field(default_factory=list)
    first_ns: int = 0
    last_ns: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    characters: int = 0

    @property
    def end(self) -> dict[str, Any]:
        """The recording's last word; empty for one that was broken off."""
        return {key: parsed(value) for key, value in (self.summary.end or {}).items()}

    @property
    def lockstep(self) -> bool:
        """Whether time stood still while a policy computed."""
        return self.run.get("mode") == "lockstep"

    def about(self, key: str) -> Any:
        """One entry of the metadata, {} where it was not recorded: older recordings say less."""
        return parsed(self.run.get(key, "{}"))

    def seconds(self, t_ns: int) -> float:
        """Seconds since the beginning of the run, at least 0."""
        return round(max(0, t_ns - self.first_ns) / NS_PER_S, 4)

    def answered_ns(self, request: HighLevelRequest, answer: HighLevelAnswer) -> int:
        """When an answer took effect."""
        return request.t_ns if self.lockstep else answer.t_ns

    def text(self, text: str) -> str:
        """`text` while there is room for it, else ""."""
        self.characters += len(text)
        return text if self.characters <= MAX_TEXT else ""

    @property
    def texts_left_out(self) -> bool:
        """Whether there was room for all of them."""
        return self.characters > MAX_TEXT


def parsed(value: str) -> Any:
    """Metadata are strings; what was not one was written as JSON."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def read(recording: Recording) -> Told:
    """Read everything but the frames. Raises MemrtError for messages of another version."""
    told = Told(recording.run, Summary(recording.run))
    reader = _Reader(told)
    for recorded in recording.messages(lambda topic: not is_frame(topic), told.summary):
        reader.take(recorded.t_ns, recorded.message)
    told.events.sort(key=lambda event: (event.timestamp.sec, event.timestamp.nsec))
    return told


class _Reader:
    def __init__(self, told: Told) -> None:
        self._told = told
        self._request: HighLevelRequest | None = None
        self._began = False

    def take(self, t_ns: int, message: msgspec.Struct) -> None:
        told = self._told
        # A message is written when its call is over, so the first one is not the earliest.
        told.first_ns = min(told.first_ns, t_ns) if self._began else t_ns
        told.last_ns = max(told.last_ns, t_ns)
        self._began = True
        if isinstance(message, HighLevelRequest):
            self._request = message
        elif isinstance(message, HighLevelAnswer):
            self._answer(message)
        elif isinstance(message, Memory):
            if told.calls and told.calls[-1][1].call == message.call and told.calls[-1][2] is None:
                request, answer, _ = told.calls[-1]
                told.calls[-1] = request, answer, message
        elif isinstance(message, LowLevelMessage):
            call = LowLevelCall(message.call, message.t_ns, message.duration_ns, message.stages)
            self._keep("low-level calls", told.low_level, call, MAX_CHUNKS)
        elif isinstance(message, Command):
            told.seams.take(message)
        elif isinstance(message, Log):
            if message.event in ("hold", "home"):
                told.seams.clear()
            self._keep("events", told.events, message, MAX_EVENTS)

    def _answer(self, answer: HighLevelAnswer) -> None:
        request = self._request
        if request is None or request.ahead_of_ns is not None:  # it only read ahead
            return
        # The memory before is the one after the call before; a history makes both long.
        slim = msgspec.structs.replace(request, before=None, system="")
        self._keep("high-level calls", self._told.calls, (slim, answer, None), MAX_CALLS)

    def _keep(self, kind: str, items: list[Any], item: Any, most: int) -> None:
        if len(items) < most:
            items.append(item)
        else:
            self._told.left_out[kind] += 1
