"""The settings of a high level that is served elsewhere, through an OpenAI-compatible endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from memrt.runtime.strict_config import Count, FieldError, Positive

HOLD = "hold"  # as `on_board`: nobody answers in the remote's place
OURS = ("model", "messages", "max_tokens", "temperature", "stream", "n")  # of a request's keys


class RemoteConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the VLM is asked, for how long an answer is waited for, and who answers when none comes.

    `on_board` names the policy whose bundle answers the same question here, or is `hold`: then the last subgoal goes on
    for as long as `time_to_live_s` lets it. `model` "" means the served model of the policy's name, or the only one.
    """

    endpoint: str  # http(s)://host[:port]/v1, as the clients of vLLM, SGLang and TensorRT Edge-LLM are given it
    on_board: str
    model: str = ""
    deadline_s: Positive = 1.0  # from the question to the whole answer; then the one on board is asked
    api_key_env: str = ""  # the environment variable that holds the key, which no file should
    image_format: Literal["png", "jpeg"] = "png"  # png keeps every pixel, jpeg takes a tenth of the link
    jpeg_quality: Annotated[int, msgspec.Meta(ge=1, le=100)] = 90
    misses_before_pause: Count = 3  # questions in a row without an answer; then the remote is left alone for a while
    longest_pause_s: Positive = 30.0  # pauses double from 1 s up to this
    extra_body: dict[str, Any] = {}  # what this server wants to be told besides, e.g. {skip_special_tokens: false}

    def __post_init__(self) -> None:
        endpoint_of(self.endpoint)
        if not self.on_board:
            raise FieldError(
                "on_board",
                expected="a policy's name, or `hold`",
                found="nothing",
                fix="say who answers in its place",
            )
        taken = sorted(set(OURS) & self.extra_body.keys())
        if taken:
            raise FieldError(
                "extra_body", expected="keys that memrt does not set itself", found=f"`{taken[0]}`", fix="remove it"
            )

    @property
    def holds(self) -> bool:
        """Whether nobody answers in the remote's place."""
        return self.on_board == HOLD


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A served API's address; `path` has no slash at its end."""

    tls: bool
    host: str
    port: int
    path: str


def endpoint_of(url: str) -> Endpoint:
    """The parts of an endpoint's URL. Raises FieldError for one that cannot be asked."""

    def refused(found: str) -> FieldError:
        return FieldError(
            "endpoint",
            expected="http(s)://host[:port]/v1, without user, password, query or fragment",
            found=found,
            fix="give the address that the server's OpenAI clients are given",
        )

    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise refused(f"{url!r}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise refused(repr(url))
    if parts.username is not None or parts.password is not None:
        raise refused("a user or a password in it")
    if parts.query or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        raise refused(repr(url))
    path = parts.path.rstrip("/")
    if not path:
        raise refused(f"no path in {url!r}")
    tls = parts.scheme == "https"
    return Endpoint(tls, parts.hostname, port or (443 if tls else 80), path)
