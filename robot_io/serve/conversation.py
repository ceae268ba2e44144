"""What the server asks of a protocol: one `Conversation` per connection, which answers one message after the other."""

# ruff: noqa: D102 - a protocol's class docstring speaks for its members

from __future__ import annotations

from typing import Any, Protocol

from memrt.runtime.errors import MemrtError


class Conversation(Protocol):
    """One client's side of a protocol.

    `greeting` is sent first. `read` decodes a message, quickly; `answer` may call the policies and runs in their
    thread; None sends nothing. Both raise MemrtError for what they refuse, and `refusal` puts that in the protocol's
    words. `supersedes`: whether `newer` makes `waiting`, which nobody has begun to answer, superfluous; the one that
    is answered in its place is what it returns, or None to answer both.
    """

    def greeting(self) -> bytes | None: ...

    def read(self, data: bytes) -> Any: ...

    def supersedes(self, newer: Any, waiting: Any) -> Any | None: ...

    def answer(self, message: Any) -> bytes | None: ...

    def refusal(self, error: MemrtError, message: Any | None) -> str | bytes: ...
