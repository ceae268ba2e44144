"""What happened when: a bounded list of events, written as the JSON that Perfetto and chrome://tracing open."""

from __future__ import annotations

import itertools
import json
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CAPACITY = 100_000  # about 40 minutes of a 20 Hz loop; beyond it the oldest events are dropped and counted
NS_PER_US = 1_000


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One event of one track. `duration_ns` is None for an instant."""

    name: str
    track: str
    t_ns: int
    duration_ns: int | None
    arguments: Mapping[str, Any]


class Trace:
    """Collects events from any thread: adding one is a single append to a bounded deque, which CPython makes atomic."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._events: deque[TraceEvent] = deque(maxlen=capacity)
        self._serial = itertools.count()
        self._added = 0

    def span(self, name: str, track: str, start_ns: int, end_ns: int, **arguments: Any) -> None:
        """Something that lasted from `start_ns` to `end_ns`."""
        self._add(TraceEvent(name, track, start_ns, max(0, end_ns - start_ns), arguments))

    def instant(self, name: str, track: str, t_ns: int, **arguments: Any) -> None:
        """Something that happened at `t_ns`: a stop, a rejected chunk, a new subgoal."""
        self._add(TraceEvent(name, track, t_ns, None, arguments))

    @property
    def dropped(self) -> int:
        """How many of the oldest events no longer fit."""
        return max(0, self._added - len(self._events))

    def events(self) -> list[TraceEvent]:
        """A copy of the events kept, in order of arrival."""
        return list(self._events)

    def write(self, path: Path) -> None:
        """Write the events as a Chrome trace, whole or not at all. Raises OSError when the disk refuses."""
        staging = path.with_name(path.name + ".part")
        staging.write_text(json.dumps(self.to_chrome(), separators=(",", ":")), encoding="utf-8")
        os.replace(staging, path)

    def to_chrome(self) -> dict[str, Any]:
        """The JSON Object Format of Chrome's trace event specification: microseconds, one thread per track."""
        events = self.events()
        tracks = {track: number for number, track in enumerate(dict.fromkeys(event.track for event in events), start=1)}
        rows: list[dict[str, Any]] = [
            {"ph": "M", "pid": 1, "tid": number, "name": "thread_name", "args": {"name": track}}
            for track, number in tracks.items()
        ]
        for event in events:
            row: dict[str, Any] = {
                "name": event.name,
                "pid": 1,
                "tid": tracks[event.track],
                "ts": event.t_ns / NS_PER_US,
                "args": dict(event.arguments),
            }
            if event.duration_ns is None:
                row |= {"ph": "i", "s": "t"}
            else:
                row |= {"ph": "X", "dur": event.duration_ns / NS_PER_US}
            rows.append(row)
        return {"traceEvents": rows, "displayTimeUnit": "ms", "otherData": {"dropped": self.dropped}}

    def _add(self, event: TraceEvent) -> None:
        self._events.append(event)
        self._added = next(self._serial) + 1
