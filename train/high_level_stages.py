"""The stages that make the base model; each starts from the weights of the one before.

language    text only: repeat sentences of the tasks' language, keep memories in words (stands in for pre-training)
vision      the vision tower alone, taught to point densely at every object
grounding   everything together: frame -> description with pixel coordinates, and the policies' chats
decoder     the same with the vision tower frozen and its features kept, twice as fast

The policies' chats are a mixture of all of them. What they have in common is learned here once; an adapter only has to
specialise. Every adapter, the memoryless one included, starts from this same ground.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor, nn
from transformers import Qwen3VLForConditionalGeneration

from memrt.runtime.config import MemoryConfig
from memrt.train.high_level_calls import call_draw
from memrt.train.high_level_data import (
    Calls,
    ExampleSource,
    Scenes,
    batches,
    describe_source,
    mixture,
    repeat_source,
)
from memrt.train.high_level_forward import TrainingForward
from memrt.train.high_level_frames import Features, FrameIndex
from memrt.train.high_level_looking import LookingHelp, reply_losses
from memrt.train.high_level_memory_text import memory_text_source
from memrt.train.high_level_pointing import PointingHead
from memrt.train.high_level_text import Example, ExampleEncoder
from memrt.train.high_level_turns import TurnWriter, told_source

STAGES = ("language", "vision", "grounding", "decoder")
POINTING_WEIGHT = 0.3  # of the dense loss beside the text loss
# Of the chats, where a policy with neither has 1: images of the past have to be compared; a spatial memory is written
# beside the other one, and read.
MANY_IMAGES_WEIGHT, SPATIAL_WEIGHT = 1.0, 2.0
SHARES = {"describe": 0.08, "chats": 0.56, "told": 0.28, "repeat": 0.02, "memory": 0.06}  # of the draws


@dataclass(frozen=True, slots=True)
class StageData:
    """What a stage learns from: scenes and calls behind one index, scenes first, and whose chats are held."""

    scenes: Scenes
    calls: Calls
    policies: tuple[str, ...]

    @property
    def frames(self) -> FrameIndex:
        """The frames of both."""
        return FrameIndex((*self.scenes.frames.blocks, *self.calls.frames.blocks))

    def description(self, index: int) -> str:
        """What is to be seen in a frame."""
        first = len(self.scenes.descriptions)
        return self.scenes.descriptions[index] if index < first else self.calls.records[index - first]["scene"]

    def training_indices(self) -> list[int]:
        """All frames that are not held out."""
        first = len(self.scenes.descriptions)
        return [*self.scenes.split()[0], *(first + index for index in self.calls.split()[0])]

    def chats(self, *, many_images: bool) -> ExampleSource:
        """Recorded calls as one or another of the policies has them; those with `many_images` only where asked for."""
        first = len(self.scenes.descriptions)
        writers = [TurnWriter.of_policy(name, self.calls) for name in self.policies]
        writers = [writer for writer in writers if many_images or writer.settings.kind != "keyframes"]
        weights = [_chat_weight(writer.settings) for writer in writers]
        draw_call = call_draw(self.calls, self.calls.split()[0])

        def draw(rng: random.Random) -> Example:
            (writer,) = rng.choices(writers, weights)
            return writer.draw(draw_call(rng), rng).shifted(first)

        return draw

    def told(self) -> ExampleSource | None:
        """Chats of policies that remember in words, with words for the picture; None where no policy does."""
        writers = [TurnWriter.of_policy(name, self.calls) for name in self.policies]
        return told_source(writers, self.calls, self.calls.split()[0])


def _chat_weight(memory: MemoryConfig) -> float:
    if memory.kind == "keyframes":
        return MANY_IMAGES_WEIGHT
    return SPATIAL_WEIGHT if memory.spatial else 1.0


class StageModule(nn.Module):
    """The model and the throw-away heads, so that one optimiser holds all."""

    def __init__(self, model: Qwen3VLForConditionalGeneration) -> None:
        super().__init__()
        self.model = model
        self.head = PointingHead(model.config.text_config.hidden_size)
        self.help = LookingHelp(model.config.text_config.hidden_size)


def stage_losses(
    stage: str,
    module: StageModule,
    encoder: ExampleEncoder,
    data: StageData | None,
    features: Path,
    batch: int,
    seed: int,
    first: int,
) -> Callable[[int], Mapping[str, Tensor]]:
    """The loss function of `stage`, starting with batch number `first`; a frozen tower's features go to `features`."""
    forward = TrainingForward(module.model)
    if stage == "vision":
        assert data is not None
        return _vision_losses(forward, module.head, data, batch, seed)
    rows = batches(_source(stage, data), encoder, batch, seed, first)
    frozen = Features(forward, data.frames, features) if data is not None and stage == "decoder" else None
    frames = data.frames if data is not None else None

    def describe(image: int) -> str:
        assert data is not None
        return data.description(image)

    def losses(_: int) -> Mapping[str, Tensor]:
        drawn = next(rows)
        texts, indices = encoder.collate(drawn)
        texts = texts.to(forward.device)
        vision = None
        dense: dict[str, Tensor] = {}
        if len(indices) and frozen is not None:
            vision = frozen.select(indices).to(forward.device)
        elif len(indices):
            assert frames is not None
            vision = forward.vision(frames.images(indices))
            scenes = [describe(int(index)) for index in indices]
            dense["loss"], dense["pointing_error_px"] = module.head.loss(vision.tokens, scenes)
        values = reply_losses(forward, module.help, encoder, drawn, texts, vision, describe)
        if dense:
            values |= dense | {"loss": values["loss"] + POINTING_WEIGHT * dense["loss"]}
        return values

    return losses


def _source(stage: str, data: StageData | None) -> ExampleSource:
    words = [(SHARES["repeat"], repeat_source()), (SHARES["memory"], memory_text_source())]
    if stage == "language":
        return mixture(words)
    assert data is not None
    describe = describe_source(data.scenes, data.scenes.split()[0])
    chats = data.chats(many_images=stage == "decoder")  # a tower that learns takes ten times as long as the rest
    seen = [(SHARES["describe"], describe), (SHARES["chats"], chats)]
    if told := data.told():
        seen.append((SHARES["told"], told))
    return mixture([*seen, *words])


def _vision_losses(
    forward: TrainingForward, head: PointingHead, data: StageData, batch: int, seed: int
) -> Callable[[int], Mapping[str, Tensor]]:
    train, frames = data.training_indices(), data.frames

    def losses(step: int) -> Mapping[str, Tensor]:
        rng = np.random.Generator(np.random.PCG64([seed, step]))
        indices = [train[i] for i in np.sort(rng.choice(len(train), batch, replace=False))]
        vision = forward.vision(frames.images(indices))
        dense, error = head.loss(vision.tokens, [data.description(index) for index in indices])
        return {"loss": dense, "pointing_error_px": error}

    return losses
