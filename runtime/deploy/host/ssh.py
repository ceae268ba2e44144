"""Runs commands on the robot's computer through the workstation's own ssh: its keys, agents and settings all apply."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from memrt.runtime.deploy.frames import SILENCE_S, Channel
from memrt.runtime.errors import MemrtError

# Neither is the user's to lose: a robot's network may vanish without a word, and bundles do not compress.
_OPTIONS = ("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3", "-o", "Compression=no", "-T")
_CONNECT = ("-o", "ConnectTimeout=10")
SSH_FAILED = 255  # ssh's own exit status for its own errors; otherwise it is the remote command's
SAID = 400  # characters of what was said last
END_S = 2 * SILENCE_S  # for the other side to go back to the old bundle, after the connection's end


@dataclass(frozen=True, slots=True)
class Robot:
    """The robot's computer. `host` as ssh knows it; `ssh` the command, e.g. `ssh -p 2222 -i key`."""

    host: str
    ssh: str = "ssh"
    sudo: bool = False

    def command(self, remote: Sequence[str]) -> list[str]:
        """The command line that runs `remote` there; its words arrive as they are."""
        if self.host.startswith("-"):  # ssh would take it for an option
            raise MemrtError("HOST", expected="a host, or user@host", found=repr(self.host), fix="correct it")
        words = [*(("sudo", "-n", "--") if self.sudo else ()), *remote]
        return [*shlex.split(self.ssh), *_OPTIONS, *_CONNECT, self.host, shlex.join(words)]

    def run(self, remote: Sequence[str], *, stdin: bytes = b"", what: str) -> str:
        """What `remote` prints. Raises MemrtError, with the last it said, when it fails."""
        try:
            ran = subprocess.run(self.command(remote), input=stdin, capture_output=True, check=False)
        except OSError as error:
            raise self._no_ssh(error) from error
        if ran.returncode != 0:
            raise self.failure(what, ran.returncode, ran.stderr.decode("utf-8", "replace"))
        return ran.stdout.decode("utf-8", "replace")

    @contextmanager
    def open(self, remote: Sequence[str]) -> Iterator[tuple[Channel, Ssh]]:
        """Run `remote` there and speak frames with it. Leaving the block ends the connection."""
        with tempfile.TemporaryFile() as said:
            try:
                process = subprocess.Popen(
                    self.command(remote), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said
                )
            except OSError as error:
                raise self._no_ssh(error) from error
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                yield Channel(process.stdout.fileno(), process.stdin.fileno(), None), Ssh(process, said)
            finally:
                process.stdin.close()
                process.stdout.close()
                try:
                    process.wait(END_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def failure(self, what: str, status: int, said: str) -> MemrtError:
        """Why a command there has failed."""
        tail = " ".join(said.split())[-SAID:] or f"exit status {status}"
        if status == SSH_FAILED:
            return MemrtError(
                f"the connection to {self.host}",
                expected=what,
                found=tail,
                fix=f"try `{self.ssh} {self.host} true` until it works without a question",
            )
        if "sudo:" in tail:
            return MemrtError(
                what, expected="sudo that asks for no password", found=tail, fix="log in as root, or allow it there"
            )
        return MemrtError(f"{what} on {self.host}", expected="success", found=tail, fix="mend what it names")

    def _no_ssh(self, error: OSError) -> MemrtError:
        return MemrtError(
            f"`{self.ssh}`", expected="OpenSSH's client", found=error.strerror, fix="apt-get install openssh-client"
        )


@dataclass(frozen=True, slots=True)
class Ssh:
    """The process of an open connection."""

    process: subprocess.Popen[bytes]
    said: IO[bytes]

    def ended(self) -> tuple[int, str]:
        """Its exit status, and what was said on stderr, once it has lost the connection."""
        try:
            status = self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.said.seek(0, os.SEEK_SET)
        return status, self.said.read().decode("utf-8", "replace")
