"""The settings of a keyframe memory (SPECS 1.2). Defaults are those that MemER's authors released."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from memrt.runtime.strict_config import Count, FieldError, Natural, Positive, check_placeholders


class KeyframesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which frames a request shows, how votes for them become keyframes, and how those are kept.

    A raw tick is 1 / `raw_rate_hz` seconds of the episode, whatever the cameras' own rates. RoboMME's variant:
    `stride: 2`, `lag: 1`, `merge_distance: 8`, `median: upper`, `destructive_merge: true`, `align: false`, one view,
    and as many `keyframes` as the context holds.
    """

    # What a request shows.
    views: tuple[str, ...]  # cameras, stacked from top to bottom (MemER: wrist above exterior)
    raw_rate_hz: Positive = 15.0  # the training data's frame rate; DROID's is 15 Hz
    stride: Count = 5  # raw ticks between recent frames
    recent: Count = 8
    keyframes: Count = 8
    lag: Natural = 0  # raw ticks between a call and its newest frame
    align: bool = True  # calls fall on multiples of the stride, so that recent frames repeat from call to call
    # How its images are written. Each text holds one `<image>`, and may hold its `{number}` among its kind, from 1.
    keyframe_text: str = "<image>"
    recent_text: str = "<image>"
    no_keyframes_text: str = "none"
    # How votes become keyframes.
    merge_distance: Natural = 25  # raw ticks: votes that close are one event
    median: Literal["lower", "upper"] = "lower"
    destructive_merge: bool = False  # an event becomes one vote for its median at every call
    max_open_frames: Count = 256  # frames in events that still grow
    # How they are kept.
    keep: Literal["jpeg", "vision_tokens"] = "jpeg"
    jpeg_quality: Annotated[int, msgspec.Meta(ge=1, le=100)] = 90
    max_bytes: Count = 32 << 20

    def __post_init__(self) -> None:
        if not self.views or len(set(self.views)) != len(self.views):
            raise FieldError(
                "views", expected="different camera names", found=list(self.views), fix="name each camera once"
            )
        if self.align and self.lag:
            raise FieldError(
                "lag", expected="0 with `align: true`", found=self.lag, fix="set `align: false`, or remove `lag`"
            )
        for field, text in (("keyframe_text", self.keyframe_text), ("recent_text", self.recent_text)):
            check_placeholders(field, text, set(), {"number"})
            if text.count("<image>") != 1:
                raise FieldError(
                    field,
                    expected="exactly one `<image>`",
                    found=f"{text.count('<image>')} of them",
                    fix="put `<image>` once, where the frame goes",
                )
        if "<image>" in self.no_keyframes_text:
            raise FieldError(
                "no_keyframes_text", expected="no `<image>`", found="one", fix="say in words that there is no keyframe"
            )
