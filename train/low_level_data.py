"""Training samples of the low-level policy: memory-mapped images, prompts as the robot writes them, small jitter."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memrt.runtime.actions_config import ActionsConfig, StateConfig
from memrt.runtime.config import LowLevelConfig
from memrt.runtime.errors import MemrtError
from memrt.runtime.policy.preprocess import NormStats, discretise_state, norm_stats_document, to_delta
from memrt.runtime.policy.prompt_tokens import PromptTokens

HELD_OUT_EVERY = 20  # every 20th episode is never trained on
PRESS_REPEATS = 3
COORDINATE_LIMIT = 255  # grounded subgoals name pixels of a 256 x 256 image

STYLES = ("simple", "grounded")


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far a training sample may differ from the recording. Zero everywhere: exactly the recording."""

    shift_px: int = 1  # of 96: a larger shift would contradict the coordinates in the prompt
    contrast: float = 0.1
    brightness: float = 0.1
    tint: float = 0.05
    coordinate_px: int = 2  # of 256: about the error of a VLM that points at things
    # Share of grounded prompts, in batches with images, that point up to so far beside the thing (log-uniform): a VLM
    # misreads a digit now and then, and then the views have to say where the thing is.
    astray: float = 0.4
    astray_px: tuple[int, int] = (4, 64)
    joint_rad: float = 0.004
    gripper: float = 0.01
    grounded: float = 0.65  # share of prompts with the grounded subgoal, the others have the simple one


class Batch(NamedTuple):
    """Images float32 [B, V, S, S, 3], token ids int64 [B, T], their validity bool [B, T], actions [B, H, d]."""

    images: Tensor
    tokens: Tensor
    mask: Tensor
    actions: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`."""
        return Batch(*(tensor.to(device) for tensor in self))


class LowLevelData:
    """The `low_level` folder of a recorded dataset. Opening reads everything but the images."""

    def __init__(self, folder: Path, settings: LowLevelConfig) -> None:
        """Raises MemrtError when the folder is unfinished or was recorded for another image size."""
        if not (folder / "DONE").is_file():
            raise MemrtError(
                f"dataset {folder}", expected="a finished recording", found="no DONE file", fix="record it to the end"
            )
        if settings.actions != ActionsConfig() or settings.state != StateConfig():
            raise MemrtError(
                "training of a low level",
                expected="joint positions and a gripper of 0 to 1, as the simulator records them",
                found="`actions` or `state` with other spaces or units",
                fix="remove both sections; they describe checkpoints that were trained elsewhere",
            )
        self.settings = settings
        self.views = [self._array(folder, camera, mapped=True) for camera in settings.cameras]
        size = self.views[0].shape[1]
        if size != settings.image_size:
            raise MemrtError(
                f"dataset {folder}",
                expected=f"{settings.image_size} x {settings.image_size} images",
                found=f"{size} x {size}",
                fix="record with the image_size of the policy's low_level block",
            )
        self.state = self._array(folder, "proprioception").astype(np.float64)
        absolute = self._array(folder, "actions").astype(np.float64)
        self.deltas = to_delta(absolute, self.state, settings.delta_mask)
        self.episode = self._array(folder, "episode")
        self.goal = self._array(folder, "goal")
        self.subgoal = {style: self._array(folder, f"subgoal_{style}") for style in STYLES}
        self.texts: list[str] = json.loads((folder / "texts.json").read_text(encoding="utf-8"))

    @staticmethod
    def _array(folder: Path, name: str, *, mapped: bool = False) -> NDArray[Any]:
        return np.load(folder / f"{name}.npy", mmap_mode="r" if mapped else None, allow_pickle=False)

    def __len__(self) -> int:
        return len(self.state)

    def split(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices for training and held-out indices; an episode is entirely in one of them."""
        held_out = self.episode % HELD_OUT_EVERY == 0
        return np.flatnonzero(~held_out), np.flatnonzero(held_out)

    def balanced(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """`indices` with those of the press repeated: it comes once per episode, the picks up to five times."""
        pressing = [self.texts[self.subgoal["simple"][index]].startswith("press") for index in indices]
        return np.concatenate([indices, np.repeat(indices[np.array(pressing)], PRESS_REPEATS)])

    def norm_stats(self) -> dict[str, Any]:
        """openpi's norm_stats.json of the training episodes.

        Deltas grow along a chunk. The quantiles are of the part that is executed: over the whole horizon they would
        press the early deltas, which move the arm, into a tenth of the noise's scale.
        """
        train, _ = self.split()
        return norm_stats_document(self.state[train], self.deltas[train][:, : self.settings.execute])


class Batches:
    """Draws batches; everything random comes from the generator that is passed in."""

    def __init__(self, data: LowLevelData, tokens: PromptTokens, stats: NormStats, augmentation: Augmentation) -> None:
        self.data, self._tokens, self._stats, self._augmentation = data, tokens, stats, augmentation
        self._actions = torch.from_numpy(stats.actions.normalise(data.deltas).astype(np.float32))

    def training(self, indices: NDArray[np.int64], rng: np.random.Generator, *, images: bool = True) -> Batch:
        """Augmented samples, each with a subgoal text of either style. Without images every view is left out."""
        styles = ["grounded" if rng.random() < self._augmentation.grounded else "simple" for _ in indices]
        astray = self._augmentation.astray if images else 0.0
        prompts = [self._prompt(i, style, rng, astray) for i, style in zip(indices, styles, strict=True)]
        return self._batch(indices, prompts, [self._jitter(i, rng) for i in indices] if images else None)

    def recorded(self, indices: NDArray[np.int64], style: str) -> Batch:
        """The same moments exactly as recorded."""
        prompts = [self._prompt(i, style, None) for i in indices]
        return self._batch(indices, prompts, [_scaled([view[i] for view in self.data.views]) for i in indices])

    def _batch(
        self, indices: NDArray[np.int64], prompts: list[NDArray[np.int64]], images: list[NDArray[np.float32]] | None
    ) -> Batch:
        longest = max(map(len, prompts))  # padding to the policy's limit would double the prefix for nothing
        tokens = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros(len(prompts), longest, dtype=torch.bool)
        for row, ids in enumerate(prompts):
            tokens[row, : len(ids)] = torch.from_numpy(ids)
            mask[row, : len(ids)] = True
        size = self.data.settings.image_size
        views = np.stack(images) if images else np.empty((len(prompts), 0, size, size, 3), np.float32)
        return Batch(torch.from_numpy(views), tokens, mask, self._actions[torch.from_numpy(indices)])

    def _prompt(
        self, index: int, style: str, rng: np.random.Generator | None, astray: float = 0.0
    ) -> NDArray[np.int64]:
        data, settings, jitter = self.data, self.data.settings, self._augmentation
        text, state = data.texts[data.subgoal[style][index]], data.state[index]
        if rng is not None:
            text = jitter_coordinates(text, self._coordinate_px(rng, astray), rng)
            scale = np.full(state.shape, jitter.joint_rad)
            scale[-1] = jitter.gripper
            state = state + rng.normal(0.0, 1.0, state.shape) * scale
        return self._tokens.prompt(
            settings.prompt,
            goal=data.texts[data.goal[index]],
            subgoal=text,
            state=discretise_state(self._stats.state.normalise(state)),
            lower_case=settings.lower_case,
        )

    def _coordinate_px(self, rng: np.random.Generator, astray: float) -> int:
        if rng.random() >= astray:
            return self._augmentation.coordinate_px
        least, most = self._augmentation.astray_px
        return round(least * (most / least) ** rng.random())

    def _jitter(self, index: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """One sample's views [V, S, S, 3]: each shifted by itself, the light of all changed together."""
        jitter = self._augmentation
        views = _scaled([_shift(view[index], jitter.shift_px, rng) for view in self.data.views])
        contrast = 1.0 + rng.uniform(-jitter.contrast, jitter.contrast) + rng.uniform(-jitter.tint, jitter.tint, 3)
        return (views * contrast + rng.uniform(-jitter.brightness, jitter.brightness)).astype(np.float32)


def jitter_coordinates(text: str, pixels: int, rng: np.random.Generator) -> str:
    """Move every number of a grounded subgoal by up to `pixels`, inside the image."""

    def moved(match: re.Match[str]) -> str:
        return str(min(COORDINATE_LIMIT, max(0, int(match.group()) + int(rng.integers(-pixels, pixels + 1)))))

    return re.sub(r"\d+", moved, text)


def _scaled(views: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    return np.stack(views).astype(np.float32) / np.float32(127.5) - np.float32(1.0)


def _shift(image: NDArray[np.uint8], pixels: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Move the picture by up to `pixels` in both directions; the edge is repeated."""
    down, right = (int(step) for step in rng.integers(-pixels, pixels + 1, 2))
    rows = np.clip(np.arange(image.shape[0]) - down, 0, image.shape[0] - 1)
    columns = np.clip(np.arange(image.shape[1]) - right, 0, image.shape[1] - 1)
    return image[rows[:, None], columns]
