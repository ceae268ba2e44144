"""One flash, as the robot's computer sees it: answers the workstation's requests in their order, under the lock."""

from __future__ import annotations

import datetime
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from memrt.runtime.cpu_fit import cpu_remark
from memrt.runtime.deploy.frames import Channel, CutConnectionError, seconds_since
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
from memrt.runtime.deploy.target import preflight
from memrt.runtime.deploy.target.activation import Activation
from memrt.runtime.deploy.target.attended import Attended
from memrt.runtime.deploy.target.layout import Layout
from memrt.runtime.deploy.target.ledger import Entry, check_version
from memrt.runtime.deploy.target.lock import hold
from memrt.runtime.deploy.target.prune import prune_bundles, prune_runtimes, prune_staging
from memrt.runtime.deploy.target.service import Service
from memrt.runtime.deploy.target.settings import read_deploy_settings
from memrt.runtime.deploy.target.staging import Staging
from memrt.runtime.deploy.target.switch import Switch
from memrt.runtime.errors import MemrtError
from memrt.runtime.signing import load_trusted

MessageT = TypeVar("MessageT", bound=Message)
_COMMAND = (sys.executable, "-c", "from memrt.runtime.cli import main; main()")


def serve(layout: Layout, channel: Channel) -> int:
    """Serve one workstation; the command's exit status. Returns when it has all it wants, or has gone."""
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        Session(layout, channel).run()
    except MemrtError as error:
        channel.send(Refused.of(error))
        return 2
    except CutConnectionError as error:
        print(f"memrt: the flash was cut short: {error}", file=sys.stderr)
        return 1
    return 0


@dataclass(slots=True)
class Session:
    """The conversation."""

    layout: Layout
    channel: Channel
    _staging: Staging | None = None
    _entry: Entry | None = None
    _facts: preflight.Facts | None = None
    _service: Service = field(init=False)
    _switch: Switch = field(init=False)
    _attended: Attended = field(init=False)

    def __post_init__(self) -> None:
        self._service = Service(read_deploy_settings(self.layout))
        self._switch = Switch(self.layout)
        self._attended = Attended(self.channel)

    def run(self) -> None:
        """Until the workstation closes the connection after `Kept`. Raises MemrtError, CutConnectionError."""
        hello = self._expect(Hello)
        if hello.protocol != PROTOCOL:
            raise MemrtError(
                "the workstation",
                expected=f"version {PROTOCOL} of the flash protocol",
                found=hello.protocol,
                fix="send this memrt along: `memrt flash HOST BUNDLE --runtime WHEELHOUSE`",
            )
        self.layout.make()
        date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        with hold(self.layout.lock, f"a flash from {hello.host} since {date}"):
            self._recover()
            self._greet(hello)
            offer = self._expect(Offer)
            self._consider(offer)
            while True:
                message = self._message()
                if isinstance(message, Begin):
                    self._receive(message)
                elif isinstance(message, Install):
                    self._install(date)
                elif isinstance(message, Build):
                    self._build()
                elif isinstance(message, Activate):
                    self._activate(message)
                    return
                else:
                    raise _out_of_turn(message)

    def _recover(self) -> None:
        if (trial := self._switch.recover()) is not None:
            self._tell(f"undid an earlier flash of {trial.bundle}, which was cut short")

    def _greet(self, hello: Hello) -> None:
        self._facts = preflight.find_facts(
            self.layout, hello.now_s, self._service.phase(), self._switch.current(), self._switch.runtime()
        )
        self.channel.send(Facts(msgspec.to_builtins(self._facts)))

    def _consider(self, offer: Offer) -> None:
        assert self._facts is not None
        self._service.require_stopped()
        ledger = self._switch.ledger()
        staging = Staging(self.layout, offer, load_trusted())
        prune_staging(self.layout, staging.id.digest)
        sizes = staging.sizes()
        try:
            check_version(ledger, staging.id)
            preflight.check(self._facts, staging.manifest, staging.size, staged=sum(sizes.values()))
        except MemrtError:
            staging.discard()
            raise
        if (remark := cpu_remark(staging.manifest.cpu)) is not None:
            self._tell(remark)
        self._staging = staging
        runs = self._facts.current == staging.id.folder and staging.id.folder in ledger.history
        if staging.installed:
            staging.discard()
        self.channel.send(Have(sizes, staging.installed, runs))

    def _receive(self, begin: Begin) -> None:
        self._staged().receive(begin.path, begin.offset, iter(self._piece, b""))

    def _install(self, date: str) -> None:
        began_ns = time.monotonic_ns()
        staging = self._staged()
        verified = staging.install()
        key = verified.signer.key
        name, version, digest = staging.id.name, staging.id.version, staging.id.digest
        self._entry = Entry(
            name=name, version=version, digest=digest, key="" if key is None else key.key_id, installed=date
        )
        self.channel.send(Installed(staging.id.folder, verified.signer.says, round(seconds_since(began_ns), 2)))

    def _build(self) -> None:
        """In a process of its own: it may need much memory, and must end when the workstation has gone."""
        began_ns = time.monotonic_ns()
        folder = self.layout.bundle(self._installed().id.folder)
        ran = self._attended.run((*_COMMAND, "build", str(folder), "--json"), None, self._tell)
        if ran.status != 0:
            raise MemrtError(
                f"engines of {folder.name} on this computer",
                expected="to be built, and to reproduce their golden outputs",
                found=ran.said or f"exit status {ran.status}",
                fix=f"run `memrt build {folder}` on the robot's computer",
            )
        report: dict[str, Any] = json.loads(ran.output)
        self.channel.send(Built(report, round(seconds_since(began_ns), 2)))

    def _activate(self, message: Activate) -> None:
        self._service.require_stopped()
        entry = self._installed()
        Activation(self._switch, self._service, self._attended, self._tell).run(entry, message.runtime, self._confirm)
        ledger = self._switch.ledger()
        folder = entry.id.folder
        self.channel.send(Kept(ledger.previous(folder)))
        prune_bundles(self.layout, {*ledger.history, folder})
        needed = {ledger.entries[good].runtime for good in ledger.history}
        prune_runtimes(self.layout, {*needed, self._switch.runtime()})

    def _confirm(self, healthy: Healthy) -> None:
        self.channel.send(healthy)
        self._expect(Keep)

    def _staged(self) -> Staging:
        if self._staging is None:
            raise _out_of_turn("a file before its offer")
        return self._staging

    def _installed(self) -> Entry:
        if self._entry is None:
            raise _out_of_turn("a build before the bundle is installed")
        return self._entry

    def _tell(self, line: str) -> None:
        self.channel.send(Line(line))

    def _message(self) -> Message:
        message = self.channel.receive()
        if isinstance(message, bytes):
            raise _out_of_turn("a piece of a file")
        return message

    def _piece(self) -> bytes:
        piece = self.channel.receive()
        if not isinstance(piece, bytes):
            raise _out_of_turn(piece)
        return piece

    def _expect(self, kind: type[MessageT]) -> MessageT:
        message = self._message()
        if not isinstance(message, kind):
            raise _out_of_turn(message)
        return message


def own_channel() -> Channel:
    """The channel of stdin and stdout. What anything prints from here on goes to stderr, or it would look like one."""
    write = os.dup(1)
    os.dup2(2, 1)
    return Channel(0, write)


def _terminated(number: int, frame: object) -> None:
    raise CutConnectionError(f"it was ended by signal {number}")


def _out_of_turn(found: object) -> MemrtError:
    name = found if isinstance(found, str) else type(found).__name__
    return MemrtError(
        "the workstation", expected="requests in their order", found=name, fix="use the same version of memrt"
    )
