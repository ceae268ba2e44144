"""The messages of a flash, in their order. The workstation asks, the robot's computer answers each once.

    Hello     → Facts       who is there; the lock is taken
    Offer     → Have        manifest and signature are checked before a byte of a file is sent
    Begin, then pieces      of every file that is missing, from where an earlier transfer ended; no answer
    Install   → Installed   everything is verified from the disk, then the folder gets its final name
    Build     → Built       device engines, and the proof
    Activate  → Healthy     switched, started disarmed, examined
    Keep      → Kept        the decision; without it the old bundle comes back

`Line` is progress, `Refused` ends it all; `Alive` tells the robot's computer that somebody still listens.
"""

from __future__ import annotations

from typing import Any

import msgspec

from memrt.runtime.errors import MemrtError

PROTOCOL = 1


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """Any of them."""


class Hello(Message, frozen=True):
    """`host` is the workstation's name, `now_s` its clock (seconds since 1970)."""

    protocol: int
    host: str
    now_s: float


class Facts(Message, frozen=True):
    """What the robot's computer is: `preflight.Facts` as plain values."""

    facts: dict[str, Any]


class Offer(Message, frozen=True):
    """The bundle to come. `sizes`: bytes of every file of the manifest. `signature` is None for an unsigned bundle."""

    manifest: bytes
    signature: bytes | None
    sizes: dict[str, int]
    allow_unsigned: bool = False


class Have(Message, frozen=True):
    """How many bytes of each file are there already. `installed`: all of it is; `current`: it even runs."""

    sizes: dict[str, int]
    installed: bool
    current: bool


class Begin(Message, frozen=True):
    """Pieces of this file follow, from `offset` to its end."""

    path: str
    offset: int


class Install(Message, frozen=True):
    """All files are sent."""


class Installed(Message, frozen=True):
    """`folder` is the bundle's name there, `signer` who vouches for it, in words."""

    folder: str
    signer: str
    seconds: float


class Build(Message, frozen=True):
    """Build what has to be built there, and prove it."""


class Built(Message, frozen=True):
    """The object that `memrt build --json` printed."""

    report: dict[str, Any]
    seconds: float


class Activate(Message, frozen=True):
    """Switch and start. `runtime`: the folder of the memrt to run it with, None for the present one."""

    runtime: str | None = None


class Healthy(Message, frozen=True):
    """`health`: the service's report. `ledger_ms`: for the trial to be on the disk; `switch_ms`: then for the links."""

    health: dict[str, Any]
    switch_ms: float
    start_s: float
    ledger_ms: float = 0.0


class Keep(Message, frozen=True):
    """The workstation has heard that it is healthy."""


class Kept(Message, frozen=True):
    """Decided. `previous` is what a rollback would run."""

    previous: str | None


class Line(Message, frozen=True):
    """Progress, for people."""

    text: str


class Alive(Message, frozen=True):
    """A sign of life."""


class Refused(Message, frozen=True):
    """A MemrtError on its way, and what runs now."""

    what: str
    expected: str
    found: str
    fix: str

    @classmethod
    def of(cls, error: MemrtError) -> Refused:
        """The error's four parts."""
        return cls(**error.parts)

    def error(self) -> MemrtError:
        """The error again."""
        return MemrtError(**msgspec.structs.asdict(self))


AnyMessage = (
    Hello | Facts | Offer | Have | Begin | Install | Installed | Build | Built | Activate | Healthy | Keep | Kept
    | Line | Alive | Refused
)  # fmt: skip


class _Codec:
    """Messages as msgpack."""

    def __init__(self) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(AnyMessage)

    def encode(self, message: Message) -> bytes:
        """The payload of a frame."""
        return self._encoder.encode(message)

    def decode(self, payload: bytes) -> Message:
        """The message. Raises msgspec.MsgspecError for anything else."""
        message: Message = self._decoder.decode(payload)
        return message


MESSAGES = _Codec()
