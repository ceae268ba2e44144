"""An `McapFile` in a process of its own, which can be ended alone: by the kernel, when memory runs out."""

from __future__ import annotations

import contextlib
import errno
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from memrt.runtime.recording import writer

END_S = 10.0  # for a process that has been told to end, or whose orders have

_encoder = msgspec.msgpack.Encoder()


class McapProcess:
    """As `McapFile`; of one thread. Every method may raise OSError; then the file must only be closed.

    The process has a session of its own: Ctrl-C in a terminal is the run's affair, which then ends the file.
    """

    def __init__(self, path: Path, library: str) -> None:
        """Create `path`, which must not exist."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", writer.__name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._bytes_written = 0
        try:
            self._order(writer.Begin(str(path.absolute()), library), answered=True)
        except OSError:
            self.close()
            raise

    @property
    def process_id(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def bytes_written(self) -> int:
        """The file's size after the last flush."""
        return self._bytes_written

    def metadata(self, name: str, values: Mapping[str, object]) -> None:
        """Write one metadata record; what is not a string becomes JSON."""
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
        self._order(writer.Metadata(name, texts))

    def write(self, topic: str, t_ns: int, message: msgspec.Struct, sequence: int = 0) -> None:
        """Append one message at the run's time `t_ns`."""
        self._order(writer.Write(topic, t_ns, sequence, _encoder.encode(message)))

    def flush(self) -> None:
        """Wait until the disk has everything."""
        self._order(writer.Flush(), answered=True)

    def finish(self) -> None:
        """Write the index and the footer."""
        self._order(writer.Finish(), answered=True)

    def close(self) -> None:
        """End the process, and with it the file as it is."""
        assert self._process.stdin is not None, "it is a pipe"
        assert self._process.stdout is not None, "it is a pipe"
        with contextlib.suppress(OSError):  # what was not written is lost
            self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _order(self, order: writer.AnyOrder, *, answered: bool = False) -> None:
        assert self._process.stdin is not None, "it is a pipe"
        try:
            self._process.stdin.write(writer.framed(order))
            if answered:
                self._process.stdin.flush()
        except OSError:  # it ended by itself, and has said why if it could
            self._hear()
        else:
            if answered:
                self._hear()

    def _hear(self) -> None:
        """Take the answer. Raises OSError for one that says what failed, and where none comes any more."""
        assert self._process.stdout is not None, "it is a pipe"
        head = self._process.stdout.read(writer.LENGTH_BYTES)
        data = self._process.stdout.read(int.from_bytes(head, "little")) if head else b""
        if not data:
            status = self._process.wait()
            how = f"signal {-status}" if status < 0 else f"status {status}"
            raise OSError(errno.EPIPE, f"the recorder's process was ended ({how})")
        answer = msgspec.msgpack.decode(data, type=writer.Answer)
        if answer.words:
            raise OSError(answer.error, answer.words)
        self._bytes_written = answer.bytes_written
