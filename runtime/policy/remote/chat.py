"""A question as a chat completion's request, and its answer out of the response: OpenAI's format, as vLLM speaks it.

The images stand in the user's turn where `<image>` stood, so that a server's chat template puts them where the session
on board does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from memrt.runtime.policy.chat import IMAGE_PLACEHOLDER
from memrt.runtime.policy.remote.transport import Missed

COMPLETIONS, MODELS = "/chat/completions", "/models"


@dataclass(frozen=True, slots=True)
class Completion:
    """A server's answer. `tokens` of it, None where the server does not count them."""

    text: str
    tokens: int | None


def messages(system: str, user: str, urls: Sequence[str]) -> list[dict[str, Any]]:
    """The turns; `urls` fill the placeholders of `user` in order. An empty `system` leaves that turn out.

    Raises ValueError for another number of placeholders.
    """
    pieces = user.split(IMAGE_PLACEHOLDER)
    parts: list[dict[str, Any]] = [{"type": "text", "text": pieces[0]}]
    for url, piece in zip(urls, pieces[1:], strict=True):
        parts += [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": piece}]
    content = [part for part in parts if part.get("text") != ""]
    turns: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    return [*turns, {"role": "user", "content": content}]


def request(
    model: str, turns: Sequence[Mapping[str, Any]], max_new_tokens: int, extra_body: Mapping[str, Any]
) -> bytes:
    """The request's JSON: greedy, one answer, as a whole."""
    ours = {"model": model, "messages": turns, "max_tokens": max_new_tokens, "temperature": 0, "stream": False}
    return msgspec.json.encode({**extra_body, **ours})


class _Message(msgspec.Struct, frozen=True):
    content: str


class _Choice(msgspec.Struct, frozen=True):
    message: _Message


class _Usage(msgspec.Struct, frozen=True):
    completion_tokens: int | None = None


class _Response(msgspec.Struct, frozen=True):
    choices: list[_Choice]
    usage: _Usage | None = None


class _Model(msgspec.Struct, frozen=True):
    id: str


class _Models(msgspec.Struct, frozen=True):
    data: list[_Model]


_response = msgspec.json.Decoder(_Response)
_models = msgspec.json.Decoder(_Models)


def completion(body: bytes) -> Completion:
    """The answer in a response. Raises Missed for anything that is none; keys that we do not read may be there."""
    try:
        response = _response.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Missed("unreadable", f"no chat completion: {error}") from error
    if not response.choices:
        raise Missed("unreadable", "a chat completion without a choice")
    usage = response.usage
    return Completion(response.choices[0].message.content, usage.completion_tokens if usage is not None else None)


def model_names(body: bytes) -> list[str]:
    """The models in a list of them. Raises Missed for anything that is none."""
    try:
        return [model.id for model in _models.decode(body).data]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Missed("unreadable", f"no list of models: {error}") from error


def chosen_model(wanted: str, policy: str, served: Sequence[str]) -> str | None:
    """The model to ask: the one `wanted`, else the one named as the policy, else the only one; None when unclear."""
    if wanted:
        return wanted if wanted in served else None
    if policy in served:
        return policy
    return served[0] if len(served) == 1 else None
