"""What a VLM's decoder is fed for recorded calls, as the runtime's own session feeds it.

The session runs with engines that compute nothing: `Pictures` hands out vision features that were computed already, and
`Listener` writes down what the decoder is asked. So there is no second implementation of prompts, positions or
embeddings to keep in step. Prompt and recorded answer become one sequence: under the causal mask that is the same as
reading the answer token by token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from memrt.calib.chats import Chat
from memrt.export.high_level_export import answer_ids
from memrt.runtime.policy.vlm_config import VlmConfig
from memrt.runtime.policy.vlm_image import fit
from memrt.runtime.policy.vlm_session import VlmSession
from memrt.runtime.types import TensorSpec

Array = NDArray[Any]
PER_TOKEN = ("embeddings", "cos", "sin", "deepstack")  # inputs that hold one entry per new token


@dataclass(frozen=True, slots=True, eq=False)
class Sequenced:
    """A recorded call as the decoder reads it: inputs by name over prompt and answer; `answer` int64 [n] ends it.

    The logits of the last `n` positions but the final token's say what the model would write.
    """

    inputs: dict[str, Array]
    answer: NDArray[np.int64]


class Pictures:
    """A vision engine whose outputs are known, by the pixels they belong to."""

    def __init__(self, known: Sequence[tuple[Array, Mapping[str, Array]]]) -> None:
        """`known` holds images uint8 [height, width, 3] and their outputs."""
        self._known = {image.tobytes(): dict(outputs) for image, outputs in known}
        self.inputs: tuple[TensorSpec, ...] = ()
        self.outputs: tuple[TensorSpec, ...] = ()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs that belong to the image."""
        return self._known[feeds["image"].tobytes()]

    def close(self) -> None:
        """Nothing to release."""


class Listener:
    """A decoder that says what it is told to, and keeps what it was fed."""

    def __init__(self, config: VlmConfig, inputs: Sequence[str]) -> None:
        self.inputs = tuple(TensorSpec(name=name, dtype="float32", shape=()) for name in inputs)
        self.outputs: tuple[TensorSpec, ...] = ()
        self.heard: list[dict[str, Array]] = []
        self._config = config
        self._answer: list[int] = []

    def dictate(self, answer: Sequence[int]) -> None:
        """The next answer, token by token."""
        self._answer, self.heard = list(answer), []

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Empty keys and values, and the next token of the answer."""
        token = self._answer[len(self.heard)]
        self.heard.append({name: feeds[name].copy() for name in PER_TOKEN if name in feeds})
        rows = (self._config.layers, self._config.kv_heads, len(feeds["embeddings"]), self._config.head_dim)
        logits = np.zeros((1, self._config.vocabulary), np.float32)
        logits[0, token] = 1.0
        empty = np.zeros(rows, np.float32)
        return {"logits": logits, "new_keys": empty, "new_values": empty}

    def close(self) -> None:
        """Nothing to release."""


def sequences(
    config: VlmConfig,
    tokenizer: Tokenizer,
    embedding: NDArray[Any],
    inputs: Sequence[str],
    chats: Sequence[Chat],
    features: Sequence[Mapping[str, Array]],
) -> list[Sequenced]:
    """The decoder's inputs for `chats`, whose images have the vision `features` (one entry per chat)."""
    size = config.image_sizes[0]
    pictures = Pictures([(fit(chat.image, size), found) for chat, found in zip(chats, features, strict=True)])
    listener = Listener(config, inputs)
    graphs = {config.vision_graph(size): pictures for size in config.image_sizes}
    session = VlmSession(config, tokenizer, embedding, graphs, listener)
    found = []
    for chat in chats:
        answer = answer_ids(chat, tokenizer, config)
        session.forget()
        listener.dictate(answer)
        session.generate(chat.system, chat.user, [chat.image], len(answer))
        found.append(Sequenced(_joined(listener.heard), np.asarray(answer, np.int64)))
    return found


def _joined(heard: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """One entry per token over all calls of an answer."""
    axes = {"deepstack": 1}
    return {name: np.concatenate([call[name] for call in heard], axis=axes.get(name, 0)) for name in heard[0]}


def as_sample(sequence: Sequenced, inputs: Sequence[str], config: VlmConfig) -> tuple[Tensor, ...]:
    """The sequence as the decoder graph's inputs, with a cache that holds nothing (one row, so that it has a shape)."""
    cache = torch.zeros(config.layers, config.kv_heads, 1, config.head_dim)
    known = {
        **{name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in sequence.inputs.items()},
        "keys": cache,
        "values": cache,
        "past_length": torch.zeros(1, dtype=torch.int64),
    }
    return tuple(known[name] for name in inputs)
