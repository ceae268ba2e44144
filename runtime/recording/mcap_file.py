"""An MCAP file that is valid up to its last flush, whatever happens to the process, the disk or the power.

Messages are gathered into compressed chunks. `flush` ends the chunk and syncs the file: what was written before it
survives a killed process and a power cut. A write that fails is undone, so the file always ends between two records.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import msgspec
from mcap.well_known import MessageEncoding, SchemaEncoding
from mcap.writer import CompressionType, Writer

from memrt.runtime.recording.messages import channel_of, json_schema

PROFILE = "memrt"
CHUNK_BYTES = 1 << 20  # uncompressed; a chunk is what a reader must unpack at once
_UINT32 = 1 << 32

_encoder = msgspec.json.Encoder()


class McapFile:
    """Writes memrt's channels. Every method may raise OSError; then the file must only be closed.

    Its index stays in memory until `finish`: about 1.5 kB per flush, 5 MB per hour.
    """

    def __init__(self, path: Path, library: str) -> None:
        """Create `path`, which must not exist: a recording is never written over."""
        self._stream = _WholeRecords(path)
        # The stream is all of IO[bytes] that the writer uses.
        stream = cast("IO[Any]", self._stream)
        self._writer = Writer(stream, CHUNK_BYTES, CompressionType.ZSTD, enable_data_crcs=True)
        self._channels: dict[str, int] = {}
        self._schemas: dict[str, int] = {}
        self._writer.start(PROFILE, library)

    @property
    def bytes_written(self) -> int:
        """The file's size so far."""
        return self._stream.tell()

    def metadata(self, name: str, values: Mapping[str, object]) -> None:
        """Write one metadata record at once; what is not a string becomes JSON."""
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
        self._writer.add_metadata(name, texts)

    def write(self, topic: str, t_ns: int, message: msgspec.Struct, sequence: int = 0) -> None:
        """Append one message at the run's time `t_ns` to the open chunk."""
        data = _encoder.encode(message)
        self._writer.add_message(self._channel(topic), max(0, t_ns), data, max(0, t_ns), sequence % _UINT32)

    def flush(self) -> None:
        """End the open chunk and wait until the disk has it."""
        self._writer.flush()
        self._stream.sync()

    def finish(self) -> None:
        """Write the index and the footer."""
        self._writer.finish()
        self._stream.sync()

    def close(self) -> None:
        """Close the file as it is."""
        self._stream.close()

    def _channel(self, topic: str) -> int:
        if topic not in self._channels:
            known = channel_of(topic)
            assert known is not None, f"no channel {topic}"
            name, message = known
            if name not in self._schemas:
                schema = json.dumps(json_schema(message)).encode()
                self._schemas[name] = self._writer.register_schema(name, SchemaEncoding.JSONSchema, schema)
            self._channels[topic] = self._writer.register_channel(topic, MessageEncoding.JSON, self._schemas[name])
        return self._channels[topic]


class _WholeRecords:
    """The file below the writer, which hands over whole records: one that the disk does not take is taken back."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._size = 0

    def write(self, data: bytes) -> int:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        """Nothing is buffered here."""

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)
