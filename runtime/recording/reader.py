"""Reads a recording up to its end, or up to where a crash cut it off."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import zstandard
from mcap.exceptions import EndOfFile, McapError
from mcap.records import Channel, Header, Message, Metadata
from mcap.stream_reader import CRCValidationError, StreamReader

from memrt.runtime.errors import MemrtError
from memrt.runtime.recording.mcap_file import PROFILE
from memrt.runtime.recording.messages import FRAMES, Log, channel_of
from memrt.runtime.recording.recorder import END, RUN

MAX_RECORD_BYTES = 256 << 20  # a longer record is damage: a chunk ends after the message that fills its first MB
_DAMAGE = (McapError, CRCValidationError, zstandard.ZstdError, struct.error, UnicodeDecodeError)  # EndOfFile included


@dataclass(frozen=True, slots=True)
class Recorded:
    """One message: `t_ns` is the run's time, `message` one of `messages.CHANNELS`."""

    topic: str
    t_ns: int
    message: msgspec.Struct


@dataclass(slots=True)
class Summary:
    """What a recording holds. `cut_off` says why it ends early, "" when it was finished and `end` says how."""

    run: dict[str, str]
    counts: Counter[str] = field(default_factory=Counter)
    first_ns: int | None = None
    last_ns: int | None = None
    cut_off: str = ""
    end: dict[str, str] | None = None
    dropped_so_far: dict[str, int] = field(default_factory=dict)

    @property
    def dropped(self) -> dict[str, int]:
        """What the recorder dropped, by kind: its last word, or what it had said when it was cut off."""
        return dict(json.loads(self.end["dropped"])) if self.end else self.dropped_so_far

    @property
    def duration_ns(self) -> int:
        """From the first message's time to the last one's."""
        return 0 if self.first_ns is None or self.last_ns is None else self.last_ns - self.first_ns

    def add(self, t_ns: int, topic: str) -> None:
        """Count one message."""
        self.counts[topic] += 1
        self.first_ns = t_ns if self.first_ns is None else min(self.first_ns, t_ns)
        self.last_ns = t_ns if self.last_ns is None else max(self.last_ns, t_ns)


class Recording:
    """A recording on disk. Nothing of it is kept in memory but its metadata."""

    def __init__(self, path: Path) -> None:
        """Raises MemrtError for what is no recording of memrt's."""
        self.path = path
        self.run: dict[str, str] = {}
        try:
            for record in self._records():
                if isinstance(record, Header) and record.profile != PROFILE:
                    raise _refused(path, f"an MCAP file of profile `{record.profile}`")
                if isinstance(record, Metadata) and record.name == RUN:
                    self.run = record.metadata
                    return
        except OSError as error:
            raise _refused(path, error.strerror or error) from error
        except _DAMAGE as error:
            raise _refused(path, f"something else ({_reason(error)})") from error
        raise _refused(path, "an MCAP file without memrt's metadata")

    def messages(
        self, wanted: Callable[[str], bool] = lambda topic: True, summary: Summary | None = None
    ) -> Iterator[Recorded]:
        """The messages of the topics that are `wanted`, in the order in which they were recorded.

        Counts all messages into `summary`. A file that is cut off ends there, without an error.
        """
        channels: dict[int, tuple[str, type[msgspec.Struct]]] = {}
        found = summary or Summary(self.run)
        try:
            for record in self._records():
                if isinstance(record, Channel) and (known := channel_of(record.topic)):
                    channels[record.id] = record.topic, known[1]
                elif isinstance(record, Metadata) and record.name == END:
                    found.end = record.metadata
                elif isinstance(record, Message) and record.channel_id in channels:
                    topic, kind = channels[record.channel_id]
                    found.add(record.log_time, topic)
                    if wanted(topic):
                        yield Recorded(topic, record.log_time, self._decoded(record.data, kind, topic))
        except _DAMAGE as error:
            found.cut_off = _reason(error)

    def summary(self) -> Summary:
        """Read it all once and count."""
        summary = Summary(self.run)
        for recorded in self.messages(lambda topic: topic == "/events", summary):
            if isinstance(event := recorded.message, Log) and event.name == "recorder":
                summary.dropped_so_far = event.arguments
        return summary

    def _records(self) -> Iterator[Any]:
        with self.path.open("rb") as file:
            yield from StreamReader(file, validate_crcs=True, record_size_limit=MAX_RECORD_BYTES).records

    def _decoded(self, data: bytes, kind: type[msgspec.Struct], topic: str) -> msgspec.Struct:
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError as error:
            raise MemrtError(
                f"recording {self.path}, channel {topic}",
                expected="messages as this version of memrt writes them",
                found=error,
                fix="read it with the memrt that recorded it",
            ) from error


def is_frame(topic: str) -> bool:
    """Whether the topic is a camera's."""
    return topic.startswith(FRAMES)


def _reason(error: Exception) -> str:
    if isinstance(error, EndOfFile | struct.error):  # the latter in the middle of a number
        return "the file is cut off: its recorder was killed, or the disk was full"
    return f"the file is damaged: {error or type(error).__name__}"


def _refused(path: Path, found: object) -> MemrtError:
    return MemrtError(
        f"recording {path}",
        expected="a file that `memrt run --record` wrote",
        found=found,
        fix="name another file, or record a run with `memrt run --record run.mcap`",
    )
