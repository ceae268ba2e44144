"""What a chat completion's request asks: OpenAI's JSON as a system turn, a user turn with `<image>` in it, and images.

Strict where a misunderstanding would go unnoticed: one user turn, images as PNG or JPEG in data URLs, greedy answers as
a whole. Other keys may be there and are not read.
"""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass

import msgspec
import numpy as np
from PIL import Image

from memrt.robot_io.serve.images import MAX_SIDE
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.chat import IMAGE_PLACEHOLDER
from memrt.runtime.types import ImageArray

MAX_IMAGES = 64  # of one request; MemER shows 16
_FORMATS = {"data:image/png;base64": "PNG", "data:image/jpeg;base64": "JPEG"}


@dataclass(frozen=True, slots=True, eq=False)
class ChatQuestion:
    """One question. `images` uint8 [height, width, 3] fill the placeholders of `user`; `max_new_tokens` None: any."""

    model: str
    system: str
    user: str
    images: list[ImageArray]
    max_new_tokens: int | None


class _Text(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    text: str


class _Url(msgspec.Struct, frozen=True):
    url: str


class _Image(msgspec.Struct, frozen=True, tag_field="type", tag="image_url"):
    image_url: _Url


class _Turn(msgspec.Struct, frozen=True):
    role: str
    content: str | list[_Text | _Image]


class _Request(msgspec.Struct, frozen=True):
    messages: list[_Turn]
    model: str = ""
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    stream: bool | None = None
    n: int | None = None


_decoder = msgspec.json.Decoder(_Request)


def read_question(body: bytes) -> ChatQuestion:
    """The question in a request's body. Raises MemrtError for one that cannot be answered as it was meant."""
    try:
        request = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refused("a chat completion's request in JSON", error) from error
    if request.temperature or request.stream or request.n not in (None, 1):
        raise _refused("`temperature: 0`, `stream: false` and one answer", "another wish")
    budget = request.max_tokens if request.max_tokens is not None else request.max_completion_tokens
    if budget is not None and budget < 1:
        raise _refused("`max_tokens` of at least 1", budget)
    turns = {turn.role: turn.content for turn in request.messages}
    roles = [turn.role for turn in request.messages]
    if roles not in (["user"], ["system", "user"]):
        raise _refused("one user turn, and a system turn before it or none", ", ".join(roles)[:100] or "no turn")
    system, without = _read(turns.get("system", ""))
    if without:
        raise _refused("no image in the system turn", len(without))
    user, urls = _read(turns["user"])
    if len(urls) > MAX_IMAGES:
        raise _refused(f"at most {MAX_IMAGES} images", len(urls))
    return ChatQuestion(request.model, system, user, [_image(url) for url in urls], budget)


def _read(content: str | list[_Text | _Image]) -> tuple[str, list[str]]:
    parts = [_Text(content)] if isinstance(content, str) else content
    texts = [IMAGE_PLACEHOLDER if isinstance(part, _Image) else part.text for part in parts]
    urls = [part.image_url.url for part in parts if isinstance(part, _Image)]
    text = "".join(texts)
    if text.count(IMAGE_PLACEHOLDER) != len(urls):
        raise _refused(f"images as parts of their own, no {IMAGE_PLACEHOLDER} in a text", "one")
    return text, urls


def _image(url: str) -> ImageArray:
    kind, _, data = url.partition(",")
    if kind not in _FORMATS:
        raise _refused("images as data:image/png or jpeg, base64", repr(url[:40]))
    try:
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=[_FORMATS[kind]]) as image:
            if image.mode != "RGB" or max(image.size) > MAX_SIDE:
                raise _refused(f"RGB images of at most {MAX_SIDE} pixels a side", f"{image.mode} {image.size}")
            return np.asarray(image)
    except (MemrtError, binascii.Error) as error:
        raise error if isinstance(error, MemrtError) else _refused("base64", error) from error
    except Exception as error:  # Pillow's decoders raise whatever their file formats made them
        raise _refused("an image file", f"{type(error).__name__}: {error}"[:200]) from error


def _refused(expected: str, found: object) -> MemrtError:
    return MemrtError("request", expected=expected, found=found, fix="send what OpenAI's vision clients send")
