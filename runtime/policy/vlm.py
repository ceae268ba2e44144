"""What a high level asks of its VLM, wherever that runs: the session on board, or one that is served elsewhere."""

# ruff: noqa: D102 - a protocol's class docstring speaks for its members

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from memrt.runtime.policy.cancellation import Cancel
from memrt.runtime.policy.frame_features import FrameFeatures, Picture

AnsweredBy = Literal["", "remote", "on board"]  # "": there is only one who could


class Reply(Protocol):
    """An answer. Durations in nanoseconds and numbers of tokens are None where a server keeps them to itself.

    `missed`: why a remote one did not give it. `counts` are the things that a reader of the run should know of.
    """

    @property
    def text(self) -> str: ...

    @property
    def answered_by(self) -> AnsweredBy: ...

    @property
    def missed(self) -> str: ...

    @property
    def counts(self) -> Mapping[str, int]: ...

    @property
    def vision_ns(self) -> int | None: ...

    @property
    def prefill_ns(self) -> int | None: ...

    @property
    def decode_ns(self) -> int | None: ...

    @property
    def new_tokens(self) -> int | None: ...

    @property
    def reused_tokens(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Generation:
    """A session's answer. `stopped` is False when the token budget ran out; times are durations in nanoseconds."""

    text: str
    new_tokens: int
    prompt_tokens: int
    reused_tokens: int
    stopped: bool
    vision_ns: int
    prefill_ns: int
    decode_ns: int
    answered_by: AnsweredBy = ""
    missed: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


class Vlm(Protocol):
    """Answers one user turn with images in it, greedily. One thread owns it.

    `generate` raises Cancelled when `cancelled` says so, Unanswered when nobody answers in time, MemrtError for a
    question that cannot be asked. `read_ahead` computes what is known of a coming question. What an earlier episode
    left behind is dropped by `forget_prefix` (K/V rows) and `forget` (frames too).
    """

    def generate(
        self,
        system: str,
        user: str,
        images: Sequence[Picture],
        max_new_tokens: int,
        *,
        cancelled: Cancel | None = None,
    ) -> Reply: ...

    def read_ahead(
        self, system: str, user: str, images: Sequence[Picture], *, cancelled: Cancel | None = None
    ) -> int: ...

    def features(self, image: Picture) -> FrameFeatures: ...

    def forget_prefix(self) -> None: ...

    def forget(self) -> None: ...

    @property
    def held_bytes(self) -> dict[str, int]: ...

    def close(self) -> None: ...
