"""What happened when: events recorded through a lock-free ring, written as the JSON that ui.perfetto.dev opens."""

from __future__ import annotations

import itertools
import json
import math
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from memrt.runtime._core import ControlEvent, TraceRing, describe_refusal

CAPACITY = 100_000  # events kept, 4 MB: about 40 minutes of a 20 Hz loop; the oldest make room and are counted
RING_CAPACITY = 1 << 14  # events between two collections
MAX_LABELS = 4096  # different names; an event beyond them is called `OTHER`
MAX_ARGUMENTS = 20_000  # events whose text or several arguments are kept; the oldest lose theirs
MAX_TEXT = 1000  # characters of a text
OTHER = "name beyond the first 4096"
INSTANT = -1  # duration, as in trace_ring.hpp
NS_PER_US = 1_000
_COLUMNS = 5  # of the ring's rows: label, kernel thread, t_ns, duration_ns, value
_INT64 = 1 << 63


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One event of one track. `duration_ns` is None for an instant, `thread` the kernel's number of who recorded it."""

    name: str
    track: str
    t_ns: int
    duration_ns: int | None
    arguments: Mapping[str, Any]
    thread: int


class _Label(NamedTuple):
    """What a number in the ring's first column stands for, and what the value in its last column is."""

    track: str
    name: str
    value: str | None = None  # the value's name; None when it means nothing


_ASIDE = ""  # as a value's name: the value is a number in the table of arguments
_REFUSAL = "refusal"  # the control thread's number for why it refused a chunk
_CONTROL = {
    ControlEvent.CHUNK_TAKEN: _Label("control", "chunk taken", "revision"),
    ControlEvent.CHUNK_REFUSED: _Label("control", "chunk refused", _REFUSAL),
    ControlEvent.MISSED_TICKS: _Label("control", "missed ticks", "ticks"),
    ControlEvent.STARVED: _Label("control", "starved", "revision"),
    ControlEvent.STOP: _Label("control", "stop"),
    ControlEvent.RESUME: _Label("control", "resume"),
}


class Trace:
    """Collects events from any thread, in bounded memory.

    An event with no argument, or with one integer, is one entry of the ring: nobody waits and the core allocates
    nothing. Other arguments (a text, a number that is no integer, several) are kept aside under a lock: for events that
    come a few times a second.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._ring = TraceRing(RING_CAPACITY)
        self._lock = threading.Lock()
        self._labels = [_Label("trace", OTHER), *(_CONTROL[event] for event in sorted(_CONTROL))]
        self._numbers: dict[tuple[str, str, str | None], int] = {label: i for i, label in enumerate(self._labels)}
        self._arguments: dict[int, Mapping[str, Any]] = {}
        self._serial = itertools.count()
        self._rows = np.empty((capacity, _COLUMNS), np.int64)
        self._stored = 0  # rows since the beginning; row n lies at n % capacity
        self._regained = 0  # refusals of the full ring after which there was room

    @property
    def ring(self) -> TraceRing:
        """For a ControlLoop of this process: with `trace=trace.ring` its events appear on the track `control`."""
        return self._ring

    def span(self, name: str, track: str, start_ns: int, end_ns: int, **arguments: Any) -> None:
        """Something that lasted from `start_ns` to `end_ns`."""
        self._record(name, track, start_ns, max(0, end_ns - start_ns), arguments)

    def instant(self, name: str, track: str, t_ns: int, **arguments: Any) -> None:
        """Something that happened at `t_ns`: a stop, a rejected chunk, a new subgoal."""
        self._record(name, track, t_ns, INSTANT, arguments)

    @property
    def dropped(self) -> int:
        """Events that are lost: the oldest, which made room, and those for which the full ring had none."""
        with self._lock:
            return max(0, self._stored - len(self._rows)) + self._ring.dropped - self._regained

    def collect(self) -> None:
        """Move events from the ring to where they are kept: now and then, by whoever has time."""
        with self._lock:
            self._collect()

    def events(self) -> list[TraceEvent]:
        """The events kept, in order of arrival."""
        with self._lock:
            self._collect()
            capacity = len(self._rows)
            places = np.arange(max(0, self._stored - capacity), self._stored) % capacity
            return [self._event(*row) for row in self._rows[places].tolist()]

    def write(self, path: Path) -> None:
        """Write the events as a Chrome trace, whole or not at all. Raises OSError when the disk refuses."""
        staging = path.with_name(path.name + ".part")
        staging.write_text(json.dumps(self.to_chrome(), separators=(",", ":"), allow_nan=False), encoding="utf-8")
        os.replace(staging, path)

    def to_chrome(self) -> dict[str, Any]:
        """The JSON Object Format of Chrome's trace event specification: times in microseconds.

        A track is shown as a thread; where several threads recorded on one track, each gets a line of its own, because
        spans of one line must not overlap.
        """
        events, pid = self.events(), os.getpid()
        lines: dict[tuple[str, int], str] = {}
        for event in events:
            line = (event.track, event.thread)
            if line not in lines:
                shared = any(track == event.track for track, _ in lines)
                lines[line] = f"{event.track}, thread {event.thread}" if shared else event.track
        numbers = {line: number for number, line in enumerate(lines, start=1)}
        rows = [_metadata(pid, 0, "process_name", {"name": "memrt"})]
        for line, number in numbers.items():
            rows.append(_metadata(pid, number, "thread_name", {"name": lines[line]}))
            rows.append(_metadata(pid, number, "thread_sort_index", {"sort_index": number}))
        for event in events:
            row: dict[str, Any] = {
                "name": event.name,
                "pid": pid,
                "tid": numbers[event.track, event.thread],
                "ts": event.t_ns / NS_PER_US,
                "args": dict(event.arguments),
            }
            if event.duration_ns is None:
                row |= {"ph": "i", "s": "t"}
            else:
                row |= {"ph": "X", "dur": event.duration_ns / NS_PER_US}
            rows.append(row)
        return {"traceEvents": rows, "displayTimeUnit": "ms", "otherData": {"dropped": self.dropped}}

    def _record(self, name: str, track: str, t_ns: int, duration_ns: int, arguments: dict[str, Any]) -> None:
        key: str | None = None
        value: Any = 0
        if arguments:
            ((key, value),) = arguments.items() if len(arguments) == 1 else ((_ASIDE, None),)
            if type(value) is not int or not -_INT64 <= value < _INT64:
                key, value = _ASIDE, self._keep(arguments)
        number = self._numbers.get((track, name, key))
        if number is None:
            number = self._number(_Label(track, name, key))
        if not self._ring.record(number, t_ns, duration_ns, value):
            with self._lock:  # full: make room, and try once more
                self._collect()
                self._ring.record(number, t_ns, duration_ns, value)
                self._regained += 1

    def _number(self, label: _Label) -> int:
        with self._lock:
            if label not in self._numbers:
                if len(self._labels) == MAX_LABELS:
                    return 0
                self._labels.append(label)
                self._numbers[label] = len(self._labels) - 1
            return self._numbers[label]

    def _keep(self, arguments: dict[str, Any]) -> int:
        with self._lock:
            serial = next(self._serial)
            self._arguments[serial] = {key: _plain(value) for key, value in arguments.items()}
            self._arguments.pop(serial - MAX_ARGUMENTS, None)
            return serial

    def _collect(self) -> None:
        rows, capacity = self._ring.drain(), len(self._rows)
        kept = rows[-capacity:]
        places = np.arange(self._stored + len(rows) - len(kept), self._stored + len(rows)) % capacity
        self._rows[places] = kept
        self._stored += len(rows)

    def _event(self, number: int, thread: int, t_ns: int, duration_ns: int, value: int) -> TraceEvent:
        track, name, key = self._labels[number]
        arguments: Mapping[str, Any] = {}
        if key == _ASIDE:
            arguments = self._arguments.get(value, {})
        elif key == _REFUSAL:
            arguments = {"reason": describe_refusal(value)}
        elif key is not None:
            arguments = {key: value}
        return TraceEvent(name, track, t_ns, None if duration_ns == INSTANT else duration_ns, arguments, thread)


def _metadata(pid: int, tid: int, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "pid": pid, "tid": tid, "name": name, "args": arguments}


def _plain(value: Any) -> str | int | float | bool | None:
    """What JSON can say, and no longer than it may be."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, np.integer):
        return int(value)
    return str(value)[:MAX_TEXT]
