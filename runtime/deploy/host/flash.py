"""One flash, as the workstation sees it: asks the robot's computer for one step after the other."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from memrt.runtime.bundle import Bundle
from memrt.runtime.deploy.frames import PIECE_BYTES, Channel, CutConnectionError, Heartbeat, seconds_since
from memrt.runtime.deploy.host.ssh import SAID, SSH_FAILED, Robot, Ssh
from memrt.runtime.deploy.messages import (
    PROTOCOL,
    Activate,
    Begin,
    Build,
    Built,
    Facts,
    Have,
    Healthy,
    Hello,
    Install,
    Installed,
    Keep,
    Kept,
    Line,
    Message,
    Offer,
    Refused,
)
from memrt.runtime.errors import MemrtError
from memrt.runtime.manifest import SIGNATURE, manifest_content

MessageT = TypeVar("MessageT", bound=Message)


class Watcher(Protocol):
    """Whoever shows the flash to people."""

    def step(self, name: str) -> None:
        """A step begins."""
        ...

    def line(self, text: str) -> None:
        """The robot's computer says something."""
        ...

    def sending(self, sent: int, total: int) -> None:
        """Bytes of the bundle that are there, and all of them."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done. `facts`: the robot's computer; `seconds`: of each step there; `health`: the service's report.

    `sent`: bytes that travelled; `kept`: False for a bundle that ran already, of which nothing was changed.
    """

    facts: dict[str, Any]
    folder: str
    signer: str = ""
    previous: str | None = None
    bytes: int = 0
    sent: int = 0
    ledger_ms: float = 0.0
    switch_ms: float = 0.0
    health: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    kept: bool = True


def flash(
    robot: Robot,
    memrt: Sequence[str],
    bundle: Bundle,
    watcher: Watcher,
    *,
    runtime: str | None = None,
    allow_unsigned: bool = False,
) -> Outcome:
    """Bring `bundle`, which was verified here, to run on `robot`. `memrt` is the command there, `runtime` its folder.

    Raises MemrtError when it is refused, is not healthy or the connection is cut: the robot's computer then runs, or
    goes back to, the bundle that ran before.
    """
    with robot.open([*memrt, "target", "session"]) as (channel, ssh), Heartbeat(channel):
        conversation = _Conversation(channel, watcher)
        try:
            return conversation.run(bundle, runtime, allow_unsigned)
        except CutConnectionError as error:
            raise _explain(robot, channel, ssh, error, conversation) from error


class _Conversation:
    """`reached`: the other side has answered; `decided`: it was told to keep the bundle."""

    def __init__(self, channel: Channel, watcher: Watcher) -> None:
        self._channel, self._watcher = channel, watcher
        self._seconds: dict[str, float] = {}
        self.reached = self.decided = False

    def run(self, bundle: Bundle, runtime: str | None, allow_unsigned: bool) -> Outcome:
        with self._step("preflight"):
            hello = Hello(PROTOCOL, platform.node(), time.time())
            facts = self._ask(hello, Facts).facts
            have = self._ask(_offer(bundle, allow_unsigned), Have)
        total = sum(path.stat().st_size for path in bundle.files.values())
        name = f"{bundle.manifest.name} version {bundle.manifest.version}"
        if have.current and runtime in (None, facts["runtime"]):
            return Outcome(facts, facts["current"], bytes=total, seconds=self._seconds, kept=False)
        with self._step(f"sending {name}", "send"):
            sent = self._send(bundle, have, total)
        with self._step("verifying there", "verify"):
            installed = self._ask(Install(), Installed)
        with self._step("building engines there, and proving them", "build"):
            self._ask(Build(), Built)
        with self._step("switching, starting disarmed, examining", "activate"):
            healthy = self._ask(Activate(runtime), Healthy)
            self.decided = True
            kept = self._ask(Keep(), Kept)
        return Outcome(
            facts,
            installed.folder,
            installed.signer,
            kept.previous,
            total,
            sent,
            healthy.ledger_ms,
            healthy.switch_ms,
            healthy.health,
            self._seconds,
        )

    def _send(self, bundle: Bundle, have: Have, total: int) -> int:
        there, sent = sum(have.sizes.values()), 0
        self._watcher.sending(there, total)
        for relative, path in bundle.files.items():
            offset, size = have.sizes.get(relative, 0), path.stat().st_size
            if offset == size and (size or have.installed):
                continue
            self._channel.send(Begin(relative, offset))
            for piece in _pieces(path, offset):
                self._channel.send_data(piece)
                sent += len(piece)
                self._watcher.sending(there + sent, total)
        return sent

    def _ask(self, message: Message, answer: type[MessageT]) -> MessageT:
        self._channel.send(message)
        while True:
            found = self._channel.receive()
            self.reached = True
            if isinstance(found, Line):
                self._watcher.line(found.text)
            elif isinstance(found, Refused):
                raise found.error()
            elif isinstance(found, answer):
                return found
            else:
                raise MemrtError(
                    "the robot's computer",
                    expected=f"{answer.__name__} in answer to {type(message).__name__}",
                    found=type(found).__name__,
                    fix="use the same version of memrt on both sides",
                )

    @contextmanager
    def _step(self, text: str, key: str | None = None) -> Iterator[None]:
        self._watcher.step(text)
        began_ns = time.monotonic_ns()
        yield
        self._seconds[key or text] = round(seconds_since(began_ns), 2)


def _offer(bundle: Bundle, allow_unsigned: bool) -> Offer:
    signature = bundle.path / SIGNATURE
    return Offer(
        manifest_content(bundle.path),
        signature.read_bytes() if signature.is_file() else None,
        {relative: path.stat().st_size for relative, path in bundle.files.items()},
        allow_unsigned,
    )


def _pieces(path: Path, offset: int) -> Iterator[memoryview]:
    buffer = bytearray(PIECE_BYTES)
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        while count := file.readinto(buffer):
            yield memoryview(buffer)[:count]


def _explain(
    robot: Robot, channel: Channel, ssh: Ssh, error: CutConnectionError, conversation: _Conversation
) -> MemrtError:
    """Why the connection ended: the other side's last word, if it had one."""
    try:
        while True:
            if isinstance(last := channel.receive(), Refused):
                return last.error()
    except (CutConnectionError, MemrtError):
        pass
    status, said = ssh.ended()
    if status == 127 or "No such file" in said:
        return MemrtError(
            f"memrt on {robot.host}",
            expected="an installed runtime",
            found=" ".join(said.split()) or "none",
            fix="send one along: `memrt flash HOST BUNDLE --runtime WHEELHOUSE`",
        )
    if status == SSH_FAILED and not conversation.reached:
        return robot.failure("an answer", status, said)
    return MemrtError(
        f"the connection to {robot.host}",
        expected="one that lasts until the bundle is kept",
        found=" ".join(said.split())[-SAID:] or f"{error} (exit status {status})",
        fix="the answer to the last word was lost: `memrt flash HOST --status` says which bundle runs"
        if conversation.decided
        else "the old bundle runs there; flash again, which goes on where this one ended",
    )
