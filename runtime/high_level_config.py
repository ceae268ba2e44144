"""How a policy's high level is asked: which VLM, what it is shown, how often, and how long its answer holds."""

from __future__ import annotations

from typing import Literal

import msgspec

from memrt.runtime.remote_config import RemoteConfig
from memrt.runtime.strict_config import Count, FieldError, Positive


class HighLevelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The policy that picks the subgoal: a VLM, or the simulator's own oracle, which has no weights.

    `remote`: a VLM that a server runs, with weights of its own; `remote` says where. `none`: there is none, and the
    goal itself is the subgoal. `camera` is then only that of the video.
    """

    source: Literal["vlm", "remote", "oracle", "none"] = "vlm"
    weights: str = ""
    adapter: str | None = None
    camera: str = "front"
    # Pixels: a square's side, or [height, width]. The report feeds 256x256; of stacked views it is the stack's size,
    # [360, 320] for MemER's two views of 320x180.
    image_size: int | tuple[int, int] = 256  # bounded below: a union with a bounded integer crashes msgspec 0.21
    # Tokens of the longest prompt, images included, and of its answer: rows of the K/V cache. An action-memory prompt
    # takes less than 300, one image of 64 included; eight keyframes and eight recent frames of that size 1024 alone.
    context_tokens: Count = 768
    every_steps: Count = 16  # control steps between two calls in lock-step
    max_new_tokens: Count = 128  # 384 for spatial memory (SPECS 1.1)
    time_to_live_s: Positive = 3.0  # a subgoal older than this makes the robot hold
    remote: RemoteConfig | None = None

    def __post_init__(self) -> None:
        self._check_remote()
        if self.source == "vlm" and not self.weights:
            raise FieldError(
                "weights", expected="the folder of the VLM's weights", found="nothing", fix="add `high_level.weights`"
            )
        if self.source != "vlm" and (self.weights or self.adapter):
            raise FieldError(
                "weights",
                expected=f"none with `source: {self.source}`",
                found=repr(self.weights or self.adapter),
                fix="remove `weights` and `adapter`, or set `source: vlm`",
            )
        if min(self.frame_size) < 1:
            raise FieldError("image_size", expected="sizes >= 1", found=self.image_size, fix="256, or [360, 320]")
        if self.context_tokens <= self.max_new_tokens:
            raise FieldError(
                "context_tokens",
                expected=f"more than the answer's {self.max_new_tokens} (`max_new_tokens`)",
                found=self.context_tokens,
                fix="768 holds one image of 256x256, its question and a short answer",
            )

    def _check_remote(self) -> None:
        if (self.remote is not None) != (self.source == "remote"):
            raise FieldError(
                "remote",
                expected="given exactly when `source: remote`",
                found="nothing" if self.remote is None else f"given with `source: {self.source}`",
                fix="add or remove `high_level.remote`",
            )
        if self.remote is not None and self.remote.deadline_s >= self.time_to_live_s:
            raise FieldError(
                "remote.deadline_s",
                expected=f"less than `time_to_live_s`, {self.time_to_live_s:g}",
                found=f"{self.remote.deadline_s:g}",
                fix="the robot holds when no answer came for that long: leave time to answer on board",
            )

    @property
    def asks_vlm(self) -> bool:
        """Whether a VLM is asked, here or elsewhere."""
        return self.source in ("vlm", "remote")

    @property
    def vlm_on_board(self) -> bool:
        """Whether the bundle needs engines of a VLM: to be asked, or to answer where a remote one does not."""
        return self.source == "vlm" or (self.remote is not None and not self.remote.holds)

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of the frames that the VLM is shown, in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size
