"""Training samples of the low-level policy: recorded pictures, prompts as the robot writes them, small jitter."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
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
from memrt.sim.frames import open_frames

HELD_OUT_EVERY = 20  # every 20th episode is never trained on
STATE_MARGIN = 0.04  # of the range, at either end: for postures that are recorded later
COORDINATE_LIMIT = 255  # grounded subgoals name pixels of a 256 x 256 image

STYLES = ("simple", "grounded", "goal")  # `goal`: the goal in the subgoal's place, as a policy without high level asks
ARRAYS = ("proprioception", "actions", "episode", "task", "goal", "subgoal_simple", "subgoal_grounded")
TEXT_ARRAYS = ARRAYS[3:]  # numbers of texts


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
    styles: tuple[float, ...] = (0.4, 0.4, 0.2)  # share of prompts in each of STYLES


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
    """The `low_level` folders of recorded datasets, as one. Opening reads everything but the images."""

    def __init__(self, folders: Path | Sequence[Path], settings: LowLevelConfig) -> None:
        """Raises MemrtError when a folder is unfinished or was recorded for another image size."""
        self.folders = [folders] if isinstance(folders, Path) else list(folders)
        for folder in self.folders:
            if not (folder / "DONE").is_file():
                raise MemrtError(
                    f"dataset {folder}", expected="a finished recording", found="no DONE file", fix="record it"
                )
        if settings.actions != ActionsConfig() or settings.state != StateConfig():
            raise MemrtError(
                "training of a low level",
                expected="joint positions and a gripper of 0 to 1, as the simulator records them",
                found="`actions` or `state` with other spaces or units",
                fix="remove both sections; they describe checkpoints that were trained elsewhere",
            )
        self.settings = settings
        self._read()

    def _read(self) -> None:
        self._seen = self._stamps()
        columns: dict[str, list[NDArray[Any]]] = {name: [] for name in ARRAYS}
        texts: dict[str, int] = {}
        for folder in self.folders:
            arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in ARRAYS}
            count = min(map(len, arrays.values()))  # while a recording grows, some of its files are longer already
            words = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
            numbers = np.array([texts.setdefault(text, len(texts)) for text in words])
            for name, array in arrays.items():
                columns[name].append(numbers[array[:count]] if name in TEXT_ARRAYS else array[:count])
        joined = {name: np.concatenate(parts) for name, parts in columns.items()}
        self.texts = list(texts)
        self.state = joined["proprioception"].astype(np.float64)
        self.deltas = to_delta(joined["actions"].astype(np.float64), self.state, self.settings.delta_mask)
        self.episode, self.task, self.goal = joined["episode"], joined["task"], joined["goal"]
        self.subgoal = {"simple": joined["subgoal_simple"], "grounded": joined["subgoal_grounded"], "goal": self.goal}
        self._starts = np.cumsum([0, *map(len, columns["episode"])])
        self._frames = {
            camera: [open_frames(folder, camera) for folder in self.folders] for camera in self.settings.cameras
        }
        size = self.picture(self.settings.cameras[0], 0).shape[0]
        if size != self.settings.image_size:
            raise MemrtError(
                f"dataset {self.folders[0]}",
                expected=f"{self.settings.image_size} x {self.settings.image_size} images",
                found=f"{size} x {size}",
                fix="record with the image_size of the policy's low_level block",
            )

    def reread(self) -> bool:
        """Read again what was recorded since; false when nothing was."""
        grown = self._stamps() != self._seen
        if grown:
            self._read()
        return grown

    def _stamps(self) -> list[int]:
        return [(folder / "DONE").stat().st_mtime_ns for folder in self.folders]

    def __len__(self) -> int:
        return len(self.state)

    def picture(self, camera: str, index: int) -> NDArray[np.uint8]:
        """What a camera showed at sample `index`, uint8 [S, S, 3]."""
        folder = int(np.searchsorted(self._starts, index, "right")) - 1
        return self._frames[camera][folder][int(index - self._starts[folder])]

    def views(self, index: int) -> list[NDArray[np.uint8]]:
        """What the policy's cameras showed."""
        return [self.picture(camera, index) for camera in self.settings.cameras]

    def split(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices for training and held-out indices; an episode is entirely in one of them."""
        held_out = self.episode % HELD_OUT_EVERY == 0
        return np.flatnonzero(~held_out), np.flatnonzero(held_out)

    def chances(self, indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """With which probability to draw each of `indices`.

        A task has a share by the square root of its number of samples, and within it so has each kind of step (the
        subgoal's first word): the press comes once per episode, the picks up to five times.
        """
        words = np.array([text.split(maxsplit=1)[0] for text in self.texts])
        _, kind = np.unique(words, return_inverse=True)
        of_task, kinds = self.task[indices].astype(np.int64), kind[self.subgoal["simple"][indices]]
        of_kind = of_task * len(words) + kinds
        chances = np.zeros(len(indices))
        for task in np.unique(of_task):
            inside = of_task == task
            groups, sizes = np.unique(of_kind[inside], return_counts=True)
            share = sizes**0.5 / (sizes**0.5).sum() * np.count_nonzero(inside) ** 0.5
            for group, size, whole in zip(groups, sizes, share, strict=True):
                chances[of_kind == group] = whole / size
        return chances / chances.sum()

    def norm_stats(self) -> dict[str, Any]:
        """openpi's norm_stats.json of the training episodes.

        Deltas grow along a chunk. The quantiles are of the part that is executed: over the whole horizon they would
        press the early deltas, which move the arm, into a tenth of the noise's scale. The state's are the widest of any
        task's, and a little wider: a state beyond them is told as if it were at them.
        """
        train, _ = self.split()
        document = norm_stats_document(self.state[train], self.deltas[train][:, : self.settings.execute])
        states = [self.state[train[self.task[train] == task]] for task in np.unique(self.task[train])]
        state = document["norm_stats"]["state"]
        low = np.min([np.quantile(part, 0.01, axis=0) for part in states], axis=0)
        high = np.max([np.quantile(part, 0.99, axis=0) for part in states], axis=0)
        state["q01"] = (low - STATE_MARGIN * (high - low)).tolist()
        state["q99"] = (high + STATE_MARGIN * (high - low)).tolist()
        return document


class Batches:
    """Draws batches; everything random comes from the generator that is passed in."""

    def __init__(self, data: LowLevelData, tokens: PromptTokens, stats: NormStats, augmentation: Augmentation) -> None:
        self.data, self._tokens, self._stats, self._augmentation = data, tokens, stats, augmentation
        self._actions = torch.from_numpy(stats.actions.normalise(data.deltas).astype(np.float32))

    def styles(self, count: int, rng: np.random.Generator) -> list[str]:
        """In which style each of `count` prompts is written."""
        return [STYLES[style] for style in rng.choice(len(STYLES), count, p=self._augmentation.styles)]

    def training(
        self, indices: NDArray[np.int64], styles: Sequence[str], rng: np.random.Generator, *, images: bool = True
    ) -> Batch:
        """Augmented samples, each with a text of its style. Without images every view is left out."""
        astray = self._augmentation.astray if images else 0.0
        prompts = [self._prompt(i, style, rng, astray) for i, style in zip(indices, styles, strict=True)]
        return self._batch(indices, prompts, [self._jitter(i, rng) for i in indices] if images else None)

    def recorded(self, indices: NDArray[np.int64], style: str) -> Batch:
        """The same moments exactly as recorded."""
        prompts = [self._prompt(i, style, None) for i in indices]
        return self._batch(indices, prompts, [_scaled(self.data.views(i)) for i in indices])

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
        views = _scaled([_shift(view, jitter.shift_px, rng) for view in self.data.views(index)])
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
