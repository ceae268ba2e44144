"""The settings of a policy's memory: which state machine keeps what, and the texts that show it to the VLM."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, Literal

import msgspec

from memrt.runtime.keyframes_config import KeyframesConfig
from memrt.runtime.strict_config import FieldError, check_placeholders, nearest

KINDS = ("none", "memoryless", "history", "language", "keyframes")  # ours; `none` is an oracle's or a missing VLM's
MEMORIES = "memrt.memories"  # the group of entry points in which packages register theirs
SubgoalStyle = Literal["simple", "grounded"]
IMAGE_PLACEHOLDER = "<image>"  # where the tokens of an image go; the VLM session replaces it


class MemoryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the high level keeps between two calls, and the texts that show it to the VLM.

    `user` may hold `{goal}`, `{history}` (alone on its line), `{action_memory}`, `{spatial_memory}` and exactly one
    `<image>`. The history line reads `user_history` (with `{subgoals}`: "1. ...; 2. ...") or, while there is none,
    `user_initial_history`. `history: false` with `kind: language` is the report's memory-only mode: the line is
    dropped; `keep_initial_history` then still shows `user_initial_history` on the first call (the report drops the
    line with the history only, its released code drops both). `commit: on_success` is MEM's rule: what the VLM writes
    becomes the action memory when it moves on to another subgoal. `change_of_mind: said_twice` holds a subgoal that
    comes without a change of the action memory until the next reply names it again.

    With `kind: keyframes` (MemER) `user` holds `{goal}`, `{keyframes}` and `{recent}` instead: `keyframes` says what
    they show. `on_new_goal` says what becomes of the memory when the goal changes within an episode. Another `kind` is
    a state machine that a package brings (runtime/memory/README.md); `settings` are its own.
    """

    kind: str
    subgoal_style: SubgoalStyle
    system: str = ""
    user: str = ""
    history: bool = False
    user_history: str = ""
    user_initial_history: str = ""
    keep_initial_history: bool = False
    initial_memory: str = ""
    spatial: bool = False
    initial_spatial_memory: str = ""
    commit: Literal["every_reply", "on_success"] = "every_reply"
    change_of_mind: Literal["at_once", "said_twice"] = "at_once"
    coordinate_order: Literal["row_column", "column_row"] = "row_column"
    on_new_goal: Literal["clear", "keep"] = "clear"
    keyframes: KeyframesConfig | None = None
    settings: dict[str, Any] = {}

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            self._check_foreign()
        elif self.settings:
            raise FieldError(
                "settings",
                expected=f"none with `kind: {self.kind}`",
                found=", ".join(self.settings),
                fix="they are for state machines that other packages bring",
            )
        if (self.keyframes is not None) != (self.kind == "keyframes"):
            raise FieldError(
                "keyframes",
                expected="given exactly when `kind: keyframes`",
                found="nothing" if self.keyframes is None else f"given with `kind: {self.kind}`",
                fix="add or remove `memory.keyframes`",
            )
        for name, usual in (("commit", "every_reply"), ("change_of_mind", "at_once")):
            found = getattr(self, name)
            if found != usual and self.kind != "language":
                raise FieldError(
                    name,
                    expected=f"`{usual}` with `kind: {self.kind}`",
                    found=f"`{found}`",
                    fix=f"set `kind: language`, or remove `{name}`",
                )
        if self.kind == "keyframes":
            self._check_keyframes()
        elif self.kind in KINDS and self.kind != "none":
            self._check_text()

    def _check_foreign(self) -> None:
        """What such a memory shows is its own affair; its words may use every placeholder of the text memories."""
        installed = sorted({point.name for point in entry_points(group=MEMORIES)})
        if self.kind not in installed:
            known = [*KINDS, *installed]
            close = nearest(self.kind, known)
            raise FieldError(
                "kind",
                expected=f"one of {', '.join(known)}",
                found=f"`{self.kind}`",
                fix=f"did you mean `{close}`?" if close else "install the package that brings this memory",
            )
        check_placeholders("user", self.user, {"goal"}, {"goal", "history", "action_memory", "spatial_memory"})
        self._check_image()

    def _check_keyframes(self) -> None:
        wanted = {"goal", "keyframes", "recent"}
        check_placeholders("user", self.user, wanted, wanted)
        if IMAGE_PLACEHOLDER in self.user:
            raise FieldError(
                "user",
                expected="no `<image>`: `{keyframes}` and `{recent}` bring theirs",
                found="one",
                fix="put `<image>` into `keyframes.keyframe_text` and `keyframes.recent_text`",
            )
        if self.history or self.spatial:
            raise FieldError(
                "history" if self.history else "spatial",
                expected="false with `kind: keyframes`",
                found="true",
                fix="remove it, or choose another kind",
            )

    def _check_text(self) -> None:
        wanted = {"goal"}
        if self.kind == "history" or self.history:
            wanted.add("history")
        if self.kind == "language":
            wanted.add("action_memory")
        if self.spatial:
            wanted.add("spatial_memory")
        allowed = wanted | ({"history"} if self.kind == "language" else set())
        check_placeholders("user", self.user, wanted, allowed)
        self._check_image()
        if "{history}" in self.user and "{history}" not in self.user.split("\n"):
            raise FieldError(
                "user", expected="`{history}` alone on its line", found="other text beside it", fix="split the line"
            )
        if "history" in wanted:
            check_placeholders("user_history", self.user_history, {"subgoals"}, {"subgoals"})
        if self.spatial and self.kind != "language":
            raise FieldError(
                "spatial", expected="false unless `kind: language`", found="true", fix="set `kind: language`"
            )

    def _check_image(self) -> None:
        if self.user.count(IMAGE_PLACEHOLDER) != 1:
            raise FieldError(
                "user",
                expected="exactly one `<image>`",
                found=f"{self.user.count(IMAGE_PLACEHOLDER)} of them",
                fix="put `<image>` once, where the current image goes",
            )
