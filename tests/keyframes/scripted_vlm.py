"""A VLM that answers from what it is shown, by a rule of the test's, and pictures that say when they were taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from memrt.runtime.memory.keyframe_reply import KeyframeReply, format_keyframe_reply
from memrt.runtime.policy.cancellation import Cancel, check
from memrt.runtime.policy.frame_features import FrameFeatures, Picture, ShownImage, content_id
from memrt.runtime.policy.vlm import Generation
from memrt.runtime.policy.vlm_config import ImageSize
from memrt.runtime.types import Frame, ImageArray, Observation

SIZE = ImageSize(height=32, width=32, grid=(1, 1))
TWO_VIEWS = Path(__file__).with_name("two_views.yaml")
STEP_LEVELS = 240  # grey levels that a picture's step is written in


def picture(step: int, side: int = 8) -> ImageArray:
    """One grey, which JPEG and scaling leave as it is: the control step, modulo `STEP_LEVELS`."""
    return np.full((side, side, 3), step % STEP_LEVELS, np.uint8)


def observation(step: int, dt_ns: int, cameras: Sequence[str], history: object = None) -> Observation:
    frames = {name: Frame(name, step, step * dt_ns, picture(step)) for name in cameras}
    return Observation(step * dt_ns, np.zeros(8), frames, history)


@dataclass
class Asked:
    """One question as the VLM saw it: the grey of every image, in order."""

    system: str
    user: str
    greys: list[int]
    contents: list[int]


Rule = Callable[[Asked], str]


def reply(subtask: str, *positions: int) -> str:
    return format_keyframe_reply(KeyframeReply(subtask, positions))


@dataclass
class ScriptedVlm:
    """Stands in for a `VlmSession`: its vision encoder counts its work, and it answers by rule."""

    rule: Rule
    asked: list[Asked] = field(default_factory=list)
    encoded: list[int] = field(default_factory=list)  # contents, in the order in which they were computed
    ahead: list[list[int]] = field(default_factory=list)  # contents of the images that were read before a question
    forgotten: int = 0
    while_answering: Callable[[], None] = lambda: None
    _cache: dict[int, FrameFeatures] = field(default_factory=dict)

    def generate(
        self, system: str, user: str, images: Sequence[Picture], budget: int, *, cancelled: Cancel | None = None
    ) -> Generation:
        features = [self.features(image) for image in images]
        assert user.count("<image>") == len(images)
        asked = Asked(system, user, [round(float(f.tokens[0, 0])) for f in features], [f.content for f in features])
        self.asked.append(asked)
        self.while_answering()
        check(cancelled)
        return Generation(self.rule(asked), 1, 1, 0, True, 1, 2, 3)

    def read_ahead(self, system: str, user: str, images: Sequence[Picture], *, cancelled: Cancel | None = None) -> int:
        assert user.count("<image>") > len(images)
        check(cancelled)
        self.ahead.append([self.features(image).content for image in images])
        return 0

    def features(self, image: Picture) -> FrameFeatures:
        if isinstance(image, FrameFeatures):
            return image
        content = image.content if isinstance(image, ShownImage) else content_id(image)
        if content not in self._cache:
            pixels = image.load() if isinstance(image, ShownImage) else image
            self.encoded.append(content)
            tokens = np.full((1, 4), pixels.mean(), np.float32)
            self._cache[content] = FrameFeatures(
                content, ImageSize(height=32, width=32, grid=(1, 1)), tokens, tokens[None, :0]
            )
        return self._cache[content]

    def forget(self) -> None:
        self._cache.clear()

    def forget_prefix(self) -> None:
        self.forgotten += 1

    def close(self) -> None:
        pass
