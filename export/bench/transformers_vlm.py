"""The bench's peer: transformers' own `generate` on the CPU, greedy, on the same weights."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from memrt.export.bench.vlm import BenchVlm, filled_model
from memrt.export.vlm_families import family_of

PEERS: dict[str, torch.dtype] = {"transformers_bf16": torch.bfloat16, "transformers_fp32": torch.float32}


@dataclass(frozen=True, slots=True, eq=False)
class PeerAnswer:
    """`tokens` int64 [new tokens]; `logits` fp32 [vocabulary] of the first. Times are durations in nanoseconds.

    `prefill_ns` is the prompt without its images, up to the first token; `decode_ns` the other tokens.
    """

    tokens: NDArray[np.int64]
    logits: NDArray[np.float32]
    vision_ns: int
    prefill_ns: int
    decode_ns: int

    @property
    def total_ns(self) -> int:
        """The whole call."""
        return self.vision_ns + self.prefill_ns + self.decode_ns


class TransformersVlm:
    """transformers' model in one type. Every answer is as long as it was asked for."""

    def __init__(self, model: BenchVlm, dtype: torch.dtype, tokens: int) -> None:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

        config: Any = model.checkpoint.config
        family, vision = family_of(config), config.vision_config
        self._processor: Any = Qwen2VLImageProcessorPil(
            patch_size=vision.patch_size,
            merge_size=vision.spatial_merge_size,
            temporal_patch_size=vision.temporal_patch_size,
            image_mean=list(family.mean),
            image_std=list(family.deviation),
            size={"shortest_edge": family.min_pixels, "longest_edge": family.max_pixels},
        )
        self._image_token, self._dtype, self._tokens = config.image_token_id, dtype, tokens
        self._model: Any = filled_model(model, dtype)
        self._model.generation_config.eos_token_id = None  # every run writes as many tokens as it was asked for
        self._clock = _Clock()
        visual = self._model.model.visual
        visual.register_forward_pre_hook(lambda *_: self._clock.enter_vision())
        visual.register_forward_hook(lambda *_: self._clock.leave_vision())

    def prepare(self, ids: Sequence[int], images: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
        """Inputs of `generate` for a prompt and its images: what its tokenizer and image processor would give."""
        features = self._processor(images=list(images), return_tensors="pt")
        tokens = torch.tensor([list(ids)])
        return {
            "input_ids": tokens,
            "attention_mask": torch.ones_like(tokens),
            "mm_token_type_ids": (tokens == self._image_token).int(),
            "pixel_values": features["pixel_values"].to(self._dtype),
            "image_grid_thw": features["image_grid_thw"],
        }

    @torch.inference_mode()
    def answer(self, inputs: dict[str, Any]) -> PeerAnswer:
        """One call, from nothing."""
        self._clock = clock = _Clock()
        start = time.perf_counter_ns()
        found = self._model.generate(
            **inputs, max_new_tokens=self._tokens, do_sample=False, pad_token_id=0, logits_processor=[clock]
        )
        assert clock.first is not None
        first, last = clock.times[0], clock.times[-1]
        return PeerAnswer(
            tokens=found[0, inputs["input_ids"].shape[1] :].numpy(),
            logits=clock.first,
            vision_ns=clock.vision_ns,
            prefill_ns=first - start - clock.vision_ns,
            decode_ns=last - first,
        )

    def close(self) -> None:
        """Give the weights back."""
        self._model = None


class _Clock:
    """Called by `generate` with the logits of every new token, and around the vision tower."""

    def __init__(self) -> None:
        self.times: list[int] = []
        self.first: NDArray[np.float32] | None = None
        self.vision_ns = 0

    def __call__(self, _ids: Any, scores: torch.Tensor) -> torch.Tensor:
        self.times.append(time.perf_counter_ns())
        if self.first is None:
            self.first = scores[0].float().numpy().copy()
        return scores

    def enter_vision(self) -> None:
        self.vision_ns -= time.perf_counter_ns()

    def leave_vision(self) -> None:
        self.vision_ns += time.perf_counter_ns()
