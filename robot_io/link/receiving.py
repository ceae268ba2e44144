"""What is heard on a channel: decoded, in order, and what is dropped is counted. The count is all it can cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from memrt.robot_io.link.wire import MAX_MESSAGE_BYTES, VERSION, Message


class VersionedGreeting(msgspec.Struct, array_like=True, frozen=True):
    """What a hello and a welcome begin with in every version of the link; what follows may differ."""

    kind: str
    session: int
    sequence: int
    version: int


class Receiver:
    """Decodes one channel's control messages."""

    def __init__(self, kinds: object) -> None:
        self._decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(kinds)
        self.dropped: Counter[str] = Counter()

    def decode(self, data: bytes) -> Message | None:
        """The message, or None when it is oversized or malformed."""
        if len(data) > MAX_MESSAGE_BYTES:
            self.dropped["oversized"] += 1
            return None
        try:
            return self._decoder.decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            self.dropped["malformed" if other_version(data) is None else "wrong version"] += 1
            return None


def other_version(data: bytes) -> VersionedGreeting | None:
    """A hello or welcome of another version of the link, or None. Its sender deserves an answer that says so."""
    try:
        greeting = msgspec.msgpack.decode(data[:MAX_MESSAGE_BYTES], type=VersionedGreeting)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    numbers = (greeting.session, greeting.sequence, greeting.version)
    if greeting.kind not in ("hello", "welcome") or not all(0 <= number < 2**63 for number in numbers):
        return None
    return greeting if greeting.version != VERSION else None


class InOrder:
    """Lets the messages of one sender through that are newer than all before them."""

    def __init__(self) -> None:
        self._last = -1
        self.dropped: Counter[str] = Counter()

    def accept(self, sequence: int) -> bool:
        """Whether this message is new; a repeated or overtaken one is counted and dropped."""
        if sequence > self._last:
            self._last = sequence
            return True
        self.dropped["duplicate" if sequence == self._last else "old"] += 1
        return False


def dropped(channel: str, counts: Mapping[str, int]) -> dict[str, Any]:
    """For the run's record: `{"chunks dropped: malformed": 2, ...}`."""
    return {f"{channel} dropped: {reason}": count for reason, count in counts.items() if count}
