"""Runs an exported VLM: one chat turn with images in, greedy text out.

What was computed is not computed again: vision features are kept per frame content, and the K/V rows of the longest
prefix shared with the previous call stay in the cache. Features come back bit for bit. K/V rows computed in another
batch of tokens differ in the last bits, so whoever needs equal bits forgets the prefix first (`forget_prefix`).
A session belongs to one thread; its memory is bounded by the cache's capacity and by `MAX_FRAMES`.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from memrt.runtime.bundle import Bundle, require_halves
from memrt.runtime.engine import TensorRtEngine, open_engine
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.chat import render_chat
from memrt.runtime.policy.mrope import RotaryTable, mrope_positions, rope_delta
from memrt.runtime.policy.prefix_cache import DeviceRows, HostRows, PrefixCache, Rows, grid_key, row_keys
from memrt.runtime.policy.vlm_config import ImageSize, VlmConfig, read_vlm_config
from memrt.runtime.policy.vlm_image import engine_size, fit
from memrt.runtime.ready_engines import ReadyEngines
from memrt.runtime.types import Engine, ImageArray

MAX_FRAMES = 32  # vision features kept: MemER's 8 keyframes and 8 recent frames twice over


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer. `stopped` is False when the token budget ran out; times are durations in nanoseconds."""

    text: str
    new_tokens: int
    prompt_tokens: int
    reused_tokens: int
    stopped: bool
    vision_ns: int
    prefill_ns: int
    decode_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class _FrameFeatures:
    """`tokens` fp32 [n, width] and `deepstack` fp32 [deepstack layers, n, width] of one frame, n its visual tokens.

    `content` identifies the frame's pixels and is never 0.
    """

    content: int
    size: ImageSize
    tokens: NDArray[np.float32]
    deepstack: NDArray[np.float32]


class VlmSession:
    """Engines, embedding table, tokenizer and caches of one exported VLM."""

    def __init__(
        self,
        config: VlmConfig,
        tokenizer: Tokenizer,
        embedding: NDArray[np.float16] | NDArray[np.float32],
        vision: Mapping[str, Engine],
        decoder: Engine,
    ) -> None:
        """`embedding` is fp32 or fp16 [vocabulary, width], usually memory-mapped; `vision` has an engine per graph.

        Its names are those of `config.vision_graph`. Raises MemrtError when the parts do not belong together.
        """
        shape = (config.vocabulary, config.width)
        if embedding.shape != shape or embedding.dtype not in (np.float16, np.float32):
            raise MemrtError(
                "embedding table",
                expected=f"float16 or float32 {list(shape)}",
                found=f"{embedding.dtype} {list(embedding.shape)}",
                fix="export the policy again: its files do not belong together",
            )
        wanted = {config.vision_graph(size) for size in config.image_sizes}
        if wanted - set(vision):
            raise MemrtError(
                "vision engines",
                expected=", ".join(sorted(wanted)),
                found=", ".join(sorted(vision)) or "none",
                fix="export the policy again: its files do not belong together",
            )
        self.config = config
        self._tokenizer, self._embedding, self._vision, self._decoder = tokenizer, embedding, vision, decoder
        self._image_token = self._token_id(config.image_token)
        self._stop = frozenset(self._token_id(token) for token in config.stop_tokens)
        self._rotary = RotaryTable(config.head_dim, config.rope_theta, config.mrope_section, config.mrope_layout)
        self._takes_deepstack = any(spec.name == "deepstack" for spec in decoder.inputs)  # not every family has it
        self._cache = PrefixCache(_rows(config, decoder), config.capacity)
        self._frames: OrderedDict[int, _FrameFeatures] = OrderedDict()
        self._no_deepstack = np.zeros((config.deepstack_layers, 1, config.width), np.float32)

    @classmethod
    def open(cls, bundle: Bundle, threads: int = 1, *, engines: ReadyEngines | None = None) -> VlmSession:
        """Open a bundle's high level; `engines` are those of this computer, found again if not given.

        Raises MemrtError when the bundle has no high level, when its engines must be built first, and when its files do
        not belong together.
        """
        require_halves(bundle, "hl")
        ready = engines or ReadyEngines.of(bundle)
        folder = bundle.file("hl/config.json").parent
        return cls._of(folder, lambda graph: ready.open(f"hl/{graph}", threads=threads))

    @classmethod
    def from_folder(cls, folder: Path, threads: int = 1) -> VlmSession:
        """The same from an `hl` folder of `.onnx` files that is not in a bundle yet."""
        return cls._of(folder, lambda graph: open_engine(folder / f"{graph}.onnx", threads=threads))

    @classmethod
    def _of(cls, folder: Path, engine: Callable[[str], Engine]) -> VlmSession:
        config = read_vlm_config(folder / "config.json")
        return cls(
            config,
            Tokenizer.from_file(str(folder / "tokenizer.json")),
            np.load(folder / "embed.npy", mmap_mode="r", allow_pickle=False),
            {graph: engine(graph) for graph in map(config.vision_graph, config.image_sizes)},
            engine("decoder"),
        )

    def generate(self, system: str, user: str, images: Sequence[ImageArray], max_new_tokens: int) -> Generation:
        """Greedy answer to one user turn; `images` uint8 [height, width, 3] fill the `<image>` placeholders in order.

        They may differ in size. Raises MemrtError for an image that no engine takes, control tokens in the texts, or a
        prompt that leaves no room for `max_new_tokens` in the cache.
        """
        started = time.monotonic_ns()
        features = [self._features(image) for image in images]
        seen = time.monotonic_ns()
        prompt = render_chat(system, user, [frame.size.tokens for frame in features])
        ids = np.asarray(self._tokenizer.encode(prompt, add_special_tokens=False).ids, dtype=np.int64)
        self._check_room(len(ids), max_new_tokens)
        positions = mrope_positions(ids.tolist(), self._image_token, [frame.size.grid for frame in features])
        identity, embeddings, deepstack = self._embed(ids, positions, features)
        reused = self._cache.keep_common_prefix(identity)
        token = self._run(identity[reused:], embeddings[reused:], deepstack[:, reused:])
        prefilled = time.monotonic_ns()
        reply, stopped = self._continue(token, len(ids), rope_delta(positions), max_new_tokens)
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

    def forget_prefix(self) -> None:
        """Drop the K/V rows: the bits of later calls no longer depend on the calls before."""
        self._cache.clear()

    def forget(self) -> None:
        """Drop all cached features and K/V rows; the next call is computed from nothing."""
        self._cache.clear()
        self._frames.clear()

    def close(self) -> None:
        """Release the engines."""
        for engine in self._vision.values():
            engine.close()
        self._decoder.close()

    def _continue(self, token: int, index: int, delta: int, budget: int) -> tuple[list[int], bool]:
        """Decode from `token`, the first of the reply, which stands at `index`; its stop token is not returned."""
        reply: list[int] = []
        while token not in self._stop:
            reply.append(token)
            if len(reply) == budget:
                return reply, False
            ids = np.asarray([token], dtype=np.int64)
            positions = np.full((3, 1), index + delta, dtype=np.int64)
            text = np.zeros(1, dtype=np.int64)
            identity = row_keys(ids, positions, text, text)
            token = self._run(identity, np.asarray(self._embedding[ids], np.float32), self._no_deepstack)
            index += 1
        return reply, True

    def _run(self, identity: NDArray[np.int64], embeddings: NDArray[np.float32], deepstack: NDArray[np.float32]) -> int:
        """Compute and keep the rows of `identity`; returns the most likely next token."""
        cos, sin = self._rotary(identity[:, 3:].T)
        feeds: dict[str, NDArray[Any]] = {
            "embeddings": np.ascontiguousarray(embeddings),
            **({"deepstack": np.ascontiguousarray(deepstack)} if self._takes_deepstack else {}),
            "cos": cos,
            "sin": sin,
            **self._cache.rows.feeds(),
            "past_length": np.asarray([self._cache.length], dtype=np.int64),
        }
        outputs = self._decoder.run(feeds)
        self._cache.append(identity, outputs)
        return int(outputs["logits"][0].argmax())

    def _embed(
        self, ids: NDArray[np.int64], positions: NDArray[np.int64], features: Sequence[_FrameFeatures]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
        """Identity [tokens, 6], embeddings [tokens, width] and dense deepstack [layers, tokens, width] of a prompt."""
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

    def _features(self, image: ImageArray) -> _FrameFeatures:
        """Vision features of one frame, from the cache where it has been seen."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise MemrtError(
                "camera image",
                expected="uint8 [height, width, 3]",
                found=f"{image.dtype} {list(image.shape)}",
                fix="convert the camera's frames to 8-bit RGB",
            )
        size = engine_size(image.shape[0], image.shape[1], self.config.image_sizes, self.config.resize)
        # The shape counts too: the same bytes may be read as 256x512 or 512x256 pixels.
        digest = hashlib.blake2b(np.asarray(image.shape, np.int64).tobytes(), digest_size=7)
        digest.update(np.ascontiguousarray(image).data)
        content = int.from_bytes(digest.digest(), "little") + 1
        cached = self._frames.get(content)
        if cached is None:
            outputs = self._vision[self.config.vision_graph(size)].run({"image": fit(image, size)})
            nothing = np.zeros((0, *outputs["tokens"].shape), np.float32)
            cached = _FrameFeatures(content, size, outputs["tokens"], outputs.get("deepstack", nothing))
            self._frames[content] = cached
            if len(self._frames) > MAX_FRAMES:
                self._frames.popitem(last=False)
        self._frames.move_to_end(content)
        return cached

    def _check_room(self, prompt_tokens: int, max_new_tokens: int) -> None:
        if prompt_tokens + max_new_tokens > self._cache.capacity:
            raise MemrtError(
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
