"""The low-level policy in PyTorch, behind the interface the robot uses: for rollouts of weights still in training."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from memrt.runtime.config import LowLevelConfig, load_policy
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.low_level import LowLevelInterface, LowLevelResult
from memrt.runtime.policy.low_level_config import LowLevelModel
from memrt.runtime.policy.low_level_session import Denoised
from memrt.runtime.policy.noise import chunk_noise
from memrt.runtime.policy.preprocess import NormStats, normalise_image
from memrt.runtime.policy.prompt_tokens import PromptTokens
from memrt.runtime.types import Observation, PlayingChunk, Subgoal
from memrt.train.pi05.checkpoint import TOKENIZER, bos_token, load_model, norm_stats_path
from memrt.train.pi05.config import Pi05Config
from memrt.train.pi05.model import Pi05
from memrt.train.pi05.sampling import sample_actions

MAX_VIEWS = 3  # openpi: a base view and two wrist views


def runtime_model(config: Pi05Config, *, bos: str, denoise_steps: int | None = None) -> LowLevelModel:
    """The runtime's settings of a network."""
    return LowLevelModel(
        image_size=config.vision.image_size,
        vision_tokens=config.vision.tokens,
        width=config.prefix.width,
        expert_width=config.expert.width,
        layers=config.prefix.depth,
        kv_heads=config.prefix.kv_heads,
        head_dim=config.prefix.head_dim,
        horizon=config.horizon,
        action_dim=config.action_dim,
        max_token_len=config.max_token_len,
        max_views=MAX_VIEWS,
        denoise_steps=denoise_steps or config.denoise_steps,
        bos_token=bos,
    )


class TorchLowLevel:
    """A checkpoint folder as the loop's `LowLevel`. Same inputs, outputs and noise as the exported policy."""

    def __init__(self, weights_dir: str | Path, settings: LowLevelConfig | None = None, threads: int = 1) -> None:
        """`settings`: the policy's low_level block, by default `am_grounded`'s. `threads` is of the whole process."""
        settings = settings or load_policy("am_grounded").low_level
        torch.set_num_threads(threads)
        folder = Path(weights_dir)
        self.network: Pi05 = load_model(folder)
        bos = bos_token(folder)
        self.model = runtime_model(self.network.config, bos=bos, denoise_steps=settings.denoise_steps)
        limit = min(self.model.max_token_len, settings.max_token_len)
        tokens = PromptTokens.open(folder / TOKENIZER, bos, limit)
        self.interface = LowLevelInterface(settings, self.model, tokens, NormStats.load(norm_stats_path(folder)))

    def noise(self, seed: int, call_index: int) -> NDArray[np.float32]:
        """As the exported policy's."""
        return chunk_noise(seed, call_index, self.model.horizon, self.model.action_dim)

    def act(
        self,
        observation: Observation,
        subgoal: Subgoal,
        goal: str,
        noise: NDArray[np.float32],
        *,
        playing: PlayingChunk | None = None,
    ) -> LowLevelResult:
        """As the exported policy's, without real-time chunking: raises MemrtError where the policy asks for it."""
        if any(part is not None for part in self.interface.continued(playing, observation)):
            raise MemrtError(
                "low-level policy in PyTorch",
                expected="no chunk to continue",
                found="a policy with `low_level.chunking`",
                fix="run it in PyTorch with `kind: none`, or export it: bundles have real-time chunking",
            )
        return self.interface.act(self.denoise, observation, subgoal, goal, noise)

    @torch.no_grad()
    def denoise(
        self, images: Sequence[NDArray[np.uint8]], tokens: NDArray[np.int64], noise: NDArray[np.float32]
    ) -> Denoised:
        """One chunk from uint8 [S, S, 3] views, token ids [T] and noise [horizon, action_dim]."""
        start_ns = time.monotonic_ns()
        size = self.model.image_size
        views = np.stack([normalise_image(image) for image in images]) if images else np.empty((0, size, size, 3))
        ids = torch.from_numpy(tokens)[None]
        prefix = self.network.prefix(
            torch.from_numpy(views.astype(np.float32))[None], ids, torch.ones_like(ids, dtype=torch.bool)
        )
        prefix_ns = time.monotonic_ns()
        actions = sample_actions(self.network, prefix, torch.from_numpy(noise)[None], self.model.denoise_steps)
        return Denoised(actions[0].numpy(), 0, prefix_ns - start_ns, time.monotonic_ns() - prefix_ns)

    def close(self) -> None:
        """Nothing to release."""
