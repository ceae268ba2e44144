"""Waits and runs commands only as long as the workstation listens: a cut connection ends both."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from memrt.runtime.deploy.frames import SILENCE_S, Channel
from memrt.runtime.errors import MemrtError

_OUTPUT_BYTES = 1 << 20  # kept of what a command prints
_END_S = 5.0  # for a command to end once it was asked to


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a command. `said`: the last line it wrote to stderr."""

    status: int
    output: bytes
    said: str


class Attended:
    """Bound to a channel; without one (a rollback by hand) only time limits end what it waits for."""

    def __init__(self, channel: Channel | None = None) -> None:
        self._channel = channel

    def pause(self, seconds: float) -> None:
        """Wait. Raises CutConnectionError when the workstation has gone or is silent."""
        end_s = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            if self._channel is not None:
                selector.register(self._channel, selectors.EVENT_READ)
            while (left_s := end_s - time.monotonic()) > 0:
                if selector.select(left_s):
                    self._listen()
        self._listen()

    def run(self, command: Sequence[str], limit_s: float | None, tell: Callable[[str], None]) -> Ran:
        """Run a command, telling each line of its stderr. Raises MemrtError when there is no such command, or it takes
        longer than `limit_s`, and as `pause`; the command is ended then, with whatever it started.
        """
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise MemrtError(
                f"cannot run `{command[0]}`", expected="a command", found=error.strerror, fix="install it"
            ) from error
        try:
            return self._follow(process, command, limit_s, tell)
        except BaseException:
            _end(process)
            raise

    def _follow(
        self,
        process: subprocess.Popen[bytes],
        command: Sequence[str],
        limit_s: float | None,
        tell: Callable[[str], None],
    ) -> Ran:
        assert process.stdout is not None
        assert process.stderr is not None
        output, errors, said = bytearray(), bytearray(), ""
        end_s = None if limit_s is None else time.monotonic() + limit_s
        with selectors.DefaultSelector() as selector, process.stdout, process.stderr:
            streams = {process.stdout.fileno(): output, process.stderr.fileno(): errors}
            for stream in streams:
                selector.register(stream, selectors.EVENT_READ)
            if self._channel is not None:
                selector.register(self._channel, selectors.EVENT_READ)
            while streams:
                left_s = None if end_s is None else end_s - time.monotonic()
                if left_s is not None and left_s <= 0:
                    raise MemrtError(
                        f"`{' '.join(command)}`",
                        expected=f"an end within {limit_s:g} s",
                        found="none",
                        fix="look at `memrt service logs` on the robot's computer",
                    )
                for key, _ in selector.select(min(left_s or SILENCE_S, SILENCE_S)):
                    if key.fd not in streams:
                        continue
                    found = os.read(key.fd, 1 << 16)
                    streams[key.fd] += found[: _OUTPUT_BYTES - len(streams[key.fd])]
                    if not found:
                        selector.unregister(key.fd)
                        del streams[key.fd]
                *lines, rest = errors.split(b"\n")
                for line in lines:
                    said = line.decode("utf-8", "replace").strip() or said
                    tell(said)
                errors[:] = rest
                self._listen()
        return Ran(process.wait(), bytes(output), said)

    def _listen(self) -> None:
        if self._channel is not None:
            self._channel.lives()


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(_END_S)
            return
        except ProcessLookupError:
            process.wait()
            return
        except subprocess.TimeoutExpired:
            continue
