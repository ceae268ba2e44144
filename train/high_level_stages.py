"""The stages that make the base model; each starts from the weights of the one before.

language    text only: repeat sentences of the tasks' language (stands in for the language model's own pre-training)
vision      the vision tower alone, taught to point densely at every object
grounding   everything together: frame -> description with pixel coordinates; (goal, frame) -> subgoal in both
            phrasings, without any memory; exercises in repeating, counting and remembering about text alone
decoder     the same chats with the vision tower frozen and its features kept, twice as fast
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import Qwen3VLForConditionalGeneration

from memrt.runtime.config import load_policy
from memrt.train.high_level_data import (
    Calls,
    ExampleSource,
    Scenes,
    batches,
    describe_source,
    mixture,
    repeat_source,
)
from memrt.train.high_level_forward import TrainingForward, VisionFeatures
from memrt.train.high_level_memory_text import memory_text_source
from memrt.train.high_level_pointing import CoordinateHead, PointingHead
from memrt.train.high_level_text import Example, ExampleEncoder

STAGES = ("language", "vision", "grounding", "decoder")
POSES_PER_LAYOUT = 4  # consecutive scenes that share a layout
POINTING_WEIGHT = 0.3  # of the dense loss beside the text loss


@dataclass(frozen=True, slots=True)
class Frames:
    """Scenes and calls behind one index: scenes first."""

    scenes: Scenes
    calls: Calls | None

    def images(self, indices: NDArray[np.int64]) -> Tensor:
        """uint8 [n, 256, 256, 3]."""
        first = len(self.scenes.descriptions)
        rows = [self.scenes.images[i] if i < first else self._call_image(int(i) - first) for i in indices]
        return torch.from_numpy(np.stack(rows))

    def descriptions(self, indices: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """The scene description of each frame."""
        first = len(self.scenes.descriptions)
        return [
            self.scenes.descriptions[i] if i < first or self.calls is None else self.calls.records[i - first]["scene"]
            for i in indices
        ]

    def training_indices(self) -> NDArray[np.int64]:
        """All frames that are not held out."""
        first = len(self.scenes.descriptions)
        calls = [] if self.calls is None else [first + index for index in self.calls.split()[0]]
        return np.asarray([*self.scenes.split()[0], *calls], dtype=np.int64)

    def _call_image(self, index: int) -> NDArray[np.uint8]:
        assert self.calls is not None
        return self.calls.images[index]


def subgoal_source(calls: Calls, indices: Sequence[int], offset: int) -> ExampleSource:
    """(goal, frame) -> subgoal in either phrasing, with the memoryless policy's prompt (its words name the style)."""
    memory = load_policy("memoryless").memory
    requests = {
        "grounded": (memory.system, memory.user),
        "simple": (memory.system.replace("grounded ", ""), memory.user.replace("grounded ", "")),
    }

    def draw(rng: random.Random) -> Example:
        index = rng.choice(indices)
        record = calls.records[index]
        style = rng.choice(("grounded", "simple"))
        system, user = requests[style]
        return Example(index + offset, system, user.format(goal=record["goal"]), record[f"subgoal_{style}"])

    return draw


class FrameFeatures:
    """Vision features of frames, computed when first asked for and kept in fp16: at most one entry per frame."""

    def __init__(self, forward: TrainingForward, frames: Frames) -> None:
        self._forward, self._frames = forward, frames
        self._kept: dict[int, Tensor] = {}

    def select(self, indices: NDArray[np.int64]) -> VisionFeatures:
        """fp32 features of some frames."""
        new = np.asarray([index for index in indices if int(index) not in self._kept], dtype=np.int64)
        if len(new):
            with torch.no_grad():
                vision = self._forward.vision(self._frames.images(new))
            stacked = torch.stack([vision.tokens, *vision.deepstack], dim=1).half().cpu()
            self._kept.update({int(index): row.clone() for index, row in zip(new, stacked, strict=True)})
        tokens, *deepstack = torch.stack([self._kept[int(index)] for index in indices]).float().unbind(1)
        return VisionFeatures(tokens, tuple(deepstack))


class StageModule(nn.Module):
    """The model and the throw-away pointing head, so that one optimiser holds both."""

    def __init__(self, model: Qwen3VLForConditionalGeneration) -> None:
        super().__init__()
        self.model = model
        self.head = PointingHead(model.config.text_config.hidden_size)
        self.coordinate = CoordinateHead(model.config.text_config.hidden_size)


def stage_losses(
    stage: str, module: StageModule, encoder: ExampleEncoder, frames: Frames | None, batch: int, seed: int, first: int
) -> Callable[[int], Mapping[str, Tensor]]:
    """The loss function of `stage`, starting with batch number `first`."""
    forward = TrainingForward(module.model)
    if stage == "vision":
        assert frames is not None
        return _vision_losses(forward, module.head, frames, batch, seed)
    rows = batches(_source(stage, frames), encoder, batch, seed, first)
    frozen = FrameFeatures(forward, frames) if frames is not None and stage == "decoder" else None

    def losses(_: int) -> Mapping[str, Tensor]:
        drawn = next(rows)
        texts, indices = encoder.collate(drawn)
        texts = texts.to(forward.device)
        vision = None
        total = torch.zeros((), device=forward.device)
        values: dict[str, Tensor] = {}
        if len(indices) and frozen is not None:
            vision = frozen.select(indices).to(forward.device)
        elif len(indices):
            assert frames is not None
            vision = forward.vision(frames.images(indices))
            dense, values["pointing_error_px"] = module.head.loss(vision.tokens, frames.descriptions(indices))
            total = POINTING_WEIGHT * dense
        length = texts.ids.shape[1]
        where, pixels = (tensor.to(forward.device) for tensor in encoder.coordinates(drawn, length))
        hidden, probed, logits = forward.decode_probed(texts, vision, where)
        if len(where):
            start = texts.image_start[where // length]
            help_loss, values["coordinate_error_px"] = module.coordinate.loss(probed, logits, start, pixels)
            total = total + help_loss
        token, correct = forward.token_losses(texts, hidden)
        text = token.mean()
        return {"loss": text + total, "text": text, "token_accuracy": correct.float().mean(), **values}

    return losses


def _source(stage: str, frames: Frames | None) -> ExampleSource:
    if stage == "language":
        return repeat_source()
    assert frames is not None
    scenes = frames.scenes.split()[0]
    if stage == "decoder":
        scenes = scenes[::POSES_PER_LAYOUT]  # every layout once: fewer features to compute, as much to learn
    describe = describe_source(frames.scenes, scenes)
    if frames.calls is None:
        return mixture([(0.9, describe), (0.1, repeat_source())])
    subgoal = subgoal_source(frames.calls, frames.calls.split()[0], len(frames.scenes.descriptions))
    return mixture([(0.42, describe), (0.4, subgoal), (0.04, repeat_source()), (0.14, memory_text_source())])


def _vision_losses(
    forward: TrainingForward, head: PointingHead, frames: Frames, batch: int, seed: int
) -> Callable[[int], Mapping[str, Tensor]]:
    train = frames.training_indices()

    def losses(step: int) -> Mapping[str, Tensor]:
        rng = np.random.Generator(np.random.PCG64([seed, step]))
        indices = np.sort(rng.choice(train, batch, replace=False)).astype(np.int64)
        dense, error = head.loss(forward.vision(frames.images(indices)).tokens, frames.descriptions(indices))
        return {"loss": dense, "pointing_error_px": error}

    return losses
