"""Runs an exported VLM: one chat turn with images in, greedy text out.

What was computed is not computed again: vision features are kept per frame content, the K/V rows of the longest
prefix shared with the previous call stay in the cache, and the previous answer is the draft of the next. Features come
back bit for bit. K/V rows computed in another batch of tokens differ in the last bits, so whoever needs equal bits
forgets the prefix first (`forget_prefix`).
A call can be given up between two runs of an engine; the rows it computed stay valid.
A session belongs to one thread; its memory is bounded by the cache's capacity and by that of `FrameEncoder`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from memrt.runtime.bundle import Bundle, require_halves
from memrt.runtime.engine import TensorRtEngine, open_engine
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.cancellation import Cancel, check
from memrt.runtime.policy.chat import IMAGE_PLACEHOLDER, TURN_END, render_chat
from memrt.runtime.policy.drafting import LONGEST, Draft
from memrt.runtime.policy.frame_features import FrameEncoder, FrameFeatures, Picture
from memrt.runtime.policy.mrope import RotaryTable, mrope_positions, rope_delta
from memrt.runtime.policy.prefix_cache import KEY_COLUMNS, DeviceRows, HostRows, PrefixCache, Rows, grid_key, row_keys
from memrt.runtime.policy.vlm import Generation
from memrt.runtime.policy.vlm_config import VlmConfig, read_vlm_config
from memrt.runtime.ready_engines import ReadyEngines
from memrt.runtime.types import Engine

# New tokens per run of the decoder while it reads a prompt; between two runs a cancelled call ends. On a GPU the
# target's profiles have kernels tuned for 256 (`decoder_lengths`). On ONNX Runtime's CPU provider a short chunk's
# attention scores stay in the core's cache: per token, 64 cost the reference policy a quarter less than 256, and a
# 2560 wide decoder of random weights 4 % more (CPU time, one thread, K/V capacity 1536).
GPU_PREFILL_CHUNK, CPU_PREFILL_CHUNK = 256, 64


class PromptTooLongError(MemrtError):
    """The cache has no room for a prompt and its answer. Nothing was computed but vision features."""


class VlmSession:
    """Engines, embedding table, tokenizer and caches of one exported VLM."""

    def __init__(
        self,
        config: VlmConfig,
        tokenizer: Tokenizer,
        embedding: NDArray[np.float16] | NDArray[np.float32],
        vision: Mapping[str, Engine],
        decoder: Engine,
        *,
        prefill_chunk: int | None = None,
        reuse: bool = True,
        drafts: bool = True,
    ) -> None:
        """`embedding` is fp32 or fp16 [vocabulary, width], usually memory-mapped; `vision` has an engine per graph.

        Its names are those of `config.vision_graph`. `prefill_chunk` ≥ 1 bounds the tokens of one run of the decoder;
        None reads a prompt in one run. Without `reuse` every call is computed from nothing; without `drafts` an answer
        takes a run per token, as it does with a decoder that was exported before it could be asked for several logits.
        Raises MemrtError when the parts do not belong together.
        """
        shape = (config.vocabulary, config.width)
        if embedding.shape != shape or embedding.dtype not in (np.float16, np.float32):
            raise MemrtError(
                "embedding table",
                expected=f"float16 or float32 {list(shape)}",
                found=f"{embedding.dtype} {list(embedding.shape)}",
                fix="export the policy again: its files do not belong together",
            )
        if prefill_chunk is not None and prefill_chunk < 1:
            raise MemrtError(
                "prefill chunk",
                expected="at least 1 token, or None",
                found=prefill_chunk,
                fix="leave it out to read a prompt in one run",
            )
        self.config, self.reuse = config, reuse
        self._tokenizer, self._embedding, self._decoder = tokenizer, embedding, decoder
        self._chunk = config.capacity if prefill_chunk is None else prefill_chunk
        self._encoder = FrameEncoder(config, vision)
        self._image_token = self._token_id(config.image_token)
        self._stop = frozenset(self._token_id(token) for token in config.stop_tokens)
        self._rotary = RotaryTable(config.head_dim, config.rope_theta, config.mrope_section, config.mrope_layout)
        takes = {spec.name for spec in decoder.inputs}
        self._takes_deepstack = "deepstack" in takes  # not every family has it
        self._takes_asked = "asked" in takes
        self._cache = PrefixCache(_rows(config, decoder), config.capacity)
        self._drafts = drafts and self._takes_asked
        self._said: list[int] = []  # the previous answer
        self._no_deepstack = np.zeros((config.deepstack_layers, LONGEST + 1, config.width), np.float32)

    @classmethod
    def open(cls, bundle: Bundle, threads: int = 1, *, engines: ReadyEngines | None = None) -> VlmSession:
        """Open a bundle's high level; `engines` are those of this computer, found again if not given.

        Prompts are read in chunks that fit the backend. Raises MemrtError when the bundle has no high level, when its
        engines must be built first, and when its files do not belong together.
        """
        require_halves(bundle, "hl")
        ready = engines or ReadyEngines.of(bundle)
        return cls._of(bundle.folder("hl"), lambda graph: ready.open(f"hl/{graph}", threads=threads), _chunk_for)

    @classmethod
    def from_folder(cls, folder: Path, threads: int = 1, *, prefill_chunk: int | None = None) -> VlmSession:
        """The same from an `hl` folder of `.onnx` files that is not in a bundle yet."""
        return cls._of(
            folder.joinpath,
            lambda graph: open_engine(folder / f"{graph}.onnx", threads=threads),
            lambda _: prefill_chunk,
        )

    @classmethod
    def _of(
        cls, file: Callable[[str], Path], engine: Callable[[str], Engine], chunk: Callable[[Engine], int | None]
    ) -> VlmSession:
        config, decoder = read_vlm_config(file("config.json")), engine("decoder")
        return cls(
            config,
            Tokenizer.from_file(str(file("tokenizer.json"))),
            np.load(file("embed.npy"), mmap_mode="r", allow_pickle=False),
            {graph: engine(graph) for graph in map(config.vision_graph, config.image_sizes)},
            decoder,
            prefill_chunk=chunk(decoder),
        )

    def generate(
        self,
        system: str,
        user: str,
        images: Sequence[Picture],
        max_new_tokens: int,
        *,
        cancelled: Cancel | None = None,
    ) -> Generation:
        """Greedy answer to one user turn; `images` fill the `<image>` placeholders in order and may differ in size.

        `cancelled` is asked before every run of an engine; when it says so, the call ends with Cancelled. Raises
        MemrtError for an image that no engine takes, control tokens in the texts, or a prompt that leaves no room for
        `max_new_tokens` in the cache.
        """
        if not self.reuse:
            self.forget()
        started = time.monotonic_ns()
        features = self._see(images, cancelled)
        seen = time.monotonic_ns()
        ids = self._ids(render_chat(system, user, [frame.size.tokens for frame in features]))
        self._check_room(len(ids), max_new_tokens)
        identity, embeddings, deepstack = self._embed(ids, features)
        reused = self._cache.keep_common_prefix(identity)
        token = self._prefill(identity, embeddings, deepstack, cancelled)
        prefilled = time.monotonic_ns()
        reply, stopped = self._continue(token, len(ids), rope_delta(identity[:, 3:].T), max_new_tokens, cancelled)
        return Generation(
            text=self._tokenizer.decode(reply, skip_special_tokens=False),
            new_tokens=len(reply) + stopped,
            prompt_tokens=len(ids),
            reused_tokens=reused,
            stopped=stopped,
            vision_ns=seen - started,
            prefill_ns=prefilled - seen,
            decode_ns=time.monotonic_ns() - prefilled,
        )

    def read_ahead(self, system: str, user: str, images: Sequence[Picture], *, cancelled: Cancel | None = None) -> int:
        """Compute what is known of a coming prompt: K/V rows up to the first image that is not in `images` yet.

        `generate` then has only the rest to read. Rows that do not fit the prompt when it comes are dropped, so that a
        wrong guess costs time and nothing else. Returns how many rows are ready. Ends and raises as `generate` does.
        """
        features = self._see(images, cancelled)
        known = IMAGE_PLACEHOLDER.join(user.split(IMAGE_PLACEHOLDER)[: len(images) + 1])
        prompt = render_chat(system, known, [frame.size.tokens for frame in features])
        ids = self._ids(prompt[: prompt.rindex(TURN_END)])
        self._check_room(len(ids), 0)
        identity, embeddings, deepstack = self._embed(ids, features)
        self._cache.keep_common_prefix(identity)
        self._prefill(identity, embeddings, deepstack, cancelled)
        return self._cache.length

    def features(self, image: Picture) -> FrameFeatures:
        """Vision features of one frame, computed if the cache has them not. Raises MemrtError as `generate` does."""
        return self._encoder.features(image)

    def forget_prefix(self) -> None:
        """Drop the K/V rows and the draft: the bits of later calls no longer depend on the calls before."""
        self._cache.clear()
        self._said = []

    def forget(self) -> None:
        """Drop all cached features and K/V rows; the next call is computed from nothing."""
        self.forget_prefix()
        self._encoder.forget()

    @property
    def held_bytes(self) -> dict[str, int]:
        """Host memory of what is kept between calls, by kind; keys and values that stay on a GPU are not counted."""
        rows = sum(array.nbytes for array in self._cache.rows.feeds().values())
        return {"frame features": self._encoder.nbytes, "K/V": rows}

    def close(self) -> None:
        """Release the engines."""
        self._encoder.close()
        self._decoder.close()

    def _see(self, images: Sequence[Picture], cancelled: Cancel | None) -> list[FrameFeatures]:
        features = []
        for image in images:
            check(cancelled)
            features.append(self._encoder.features(image))
        return features

    def _ids(self, prompt: str) -> NDArray[np.int64]:
        return np.asarray(self._tokenizer.encode(prompt, add_special_tokens=False).ids, dtype=np.int64)

    def _prefill(
        self,
        identity: NDArray[np.int64],
        embeddings: NDArray[np.float32],
        deepstack: NDArray[np.float32],
        cancelled: Cancel | None,
    ) -> int:
        """Compute the rows of the prompt that the cache has not, chunk by chunk; returns the answer's first token."""
        cos, sin = self._rotary(identity[:, 3:].T)
        token = -1
        while (start := self._cache.length) < len(identity):
            check(cancelled)
            part = slice(start, start + self._chunk)
            token = self._run(identity[part], embeddings[part], deepstack[:, part], cos[part], sin[part])[-1]
        return token

    def _continue(
        self, token: int, index: int, delta: int, budget: int, cancelled: Cancel | None
    ) -> tuple[list[int], bool]:
        """Decode from `token`, the first of the reply, which stands at `index`; its stop token is not returned."""
        reply: list[int] = []
        draft = Draft(self._said if self._drafts else ())
        identity = np.zeros((budget, KEY_COLUMNS), dtype=np.int64)
        identity[:, 3:] = np.arange(index + delta, index + delta + budget)[:, None]
        cos, sin = self._rotary(identity[:, 3:].T)
        while token not in self._stop:
            start = len(reply)
            reply.append(token)
            if len(reply) == budget:
                break
            check(cancelled)
            drafted = draft.after(token, budget - len(reply) - 1)
            part, ids = slice(start, start + 1 + len(drafted)), [token, *drafted]
            identity[part, 0] = ids
            embeddings, deepstack = self._embedding[ids], self._no_deepstack[:, : len(ids)]
            found = self._run(identity[part], embeddings, deepstack, cos[part], sin[part], answers=len(ids))
            agreed = draft.judged(drafted, found)
            self._cache.cut(len(drafted) - agreed)
            reply += drafted[:agreed]
            token = found[agreed]
        self._said = reply
        return reply, token in self._stop

    def _run(
        self,
        identity: NDArray[np.int64],
        embeddings: NDArray[Any],
        deepstack: NDArray[np.float32],
        cos: NDArray[np.float32],
        sin: NDArray[np.float32],
        *,
        answers: int = 1,
    ) -> list[int]:
        """Compute and keep the rows of `identity`; returns the likeliest token after each of the last `answers`."""
        feeds: dict[str, NDArray[Any]] = {
            "embeddings": np.ascontiguousarray(embeddings, np.float32),
            **({"deepstack": np.ascontiguousarray(deepstack)} if self._takes_deepstack else {}),
            "cos": cos,
            "sin": sin,
            **self._cache.rows.feeds(),
            "past_length": np.asarray([self._cache.length], dtype=np.int64),
            **({"asked": np.arange(len(identity) - answers, len(identity))} if self._takes_asked else {}),
        }
        outputs = self._decoder.run(feeds)
        self._cache.append(identity, outputs)
        return [int(token) for token in outputs["logits"].argmax(-1)]

    def _embed(
        self, ids: NDArray[np.int64], features: Sequence[FrameFeatures]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
        """Identity [tokens, 6], embeddings [tokens, width] and dense deepstack [layers, tokens, width] of a prompt."""
        positions = mrope_positions(ids.tolist(), self._image_token, [frame.size.grid for frame in features])
        embeddings = np.asarray(self._embedding[ids], dtype=np.float32)
        deepstack = np.zeros((self.config.deepstack_layers, len(ids), self.config.width), np.float32)
        frames, grids = np.zeros((2, len(ids)), dtype=np.int64)
        slots, start = np.flatnonzero(ids == self._image_token), 0
        for frame in features:
            where = slots[start : start + frame.size.tokens]
            embeddings[where] = frame.tokens
            deepstack[:, where] = frame.deepstack
            frames[where], grids[where] = frame.content, grid_key(*frame.size.grid)
            start += frame.size.tokens
        return row_keys(ids, positions, frames, grids), embeddings, deepstack

    def _check_room(self, prompt_tokens: int, max_new_tokens: int) -> None:
        if prompt_tokens + max_new_tokens > self._cache.capacity:
            raise PromptTooLongError(
                "prompt too long",
                expected=f"at most {self._cache.capacity - max_new_tokens} tokens beside {max_new_tokens} new ones",
                found=prompt_tokens,
                fix="shorten the goal or the memory, or export the policy with a larger cache",
            )

    def _token_id(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise MemrtError(
                "tokenizer", expected=f"the control token {token}", found="none", fix="export the policy again"
            )
        return int(found)


def _rows(config: VlmConfig, decoder: Engine) -> Rows:
    """Keys and values lie where the decoder runs."""
    if isinstance(decoder, TensorRtEngine):
        return DeviceRows(decoder)
    return HostRows(config.layers, config.kv_heads, config.capacity, config.head_dim)


def _chunk_for(decoder: Engine) -> int:
    return GPU_PREFILL_CHUNK if isinstance(decoder, TensorRtEngine) else CPU_PREFILL_CHUNK
