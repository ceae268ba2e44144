"""A policy's settings, as its YAML file states them: what it remembers, how it is asked, and which weights act.

Prompts are data (they differ between checkpoints), so they live in the YAML and nowhere else. Formats and figures:
the compressed-memory report, appendix A.2; openpi for the low level's prompt. Units are in the field names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from memrt.runtime.actions_config import ActionsConfig, StateConfig, check_delta_mask
from memrt.runtime.errors import MemrtError
from memrt.runtime.high_level_config import HighLevelConfig
from memrt.runtime.memory_config import IMAGE_PLACEHOLDER, MemoryConfig, SubgoalStyle
from memrt.runtime.packaged import packaged_file, packaged_names
from memrt.runtime.strict_config import Count, FieldError, Positive, check_placeholders, convert, read_yaml

__all__ = [
    "IMAGE_PLACEHOLDER",
    "ChunkingConfig",
    "HighLevelConfig",
    "LowLevelConfig",
    "MemoryConfig",
    "PolicyConfig",
    "SubgoalStyle",
    "load_policy",
    "policy_from_dict",
    "policy_names",
    "policy_to_dict",
    "resolve_weights",
]


class ChunkingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a chunk continues the one that is being executed: real-time chunking, SPECS 3.

    `none`: not at all, the robot's seam smooths the jump. `guided`: pulled towards it while denoising; any weights.
    `prefix`: begins with its actions; weights trained for it and a bundle with the engine `step_rtc`.
    """

    kind: Literal["none", "prefix", "guided"] = "none"
    beta: Positive = 5.0  # bound of the guidance weight (SPECS 3; LeRobot's default is 10)
    latency_window: Count = 16  # newest calls whose largest latency is the delay; at 2.5 calls/s a stall counts for 6 s
    warm_up_calls: Annotated[int, msgspec.Meta(ge=0)] = 2  # of a run: they count only while there are no others


class LowLevelConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The action expert. `prompt` may hold `{goal}`, `{subgoal}` and `{state}` (the discretised proprioception).

    `calls`: `chunked` computes a chunk every `execute` actions, `every_tick` at every control step or, where that is
    too fast for the computer, as soon as the last one is done. `on_new_subgoal` says what becomes of a chunk that was
    computed under an older subgoal: `finish` plays it, `discard` drops it and asks for a new one at once.
    """

    weights: str
    cameras: tuple[str, ...]
    image_size: Count  # pixels, square, after resize with padding
    prompt: str
    max_token_len: Count
    horizon: Count  # actions per chunk
    execute: Count  # actions executed before the next chunk
    denoise_steps: Count
    control_hz: Positive
    delta_mask: tuple[bool, ...]  # true: that action is learnt relative to the current state
    lower_case: bool
    actions: ActionsConfig = ActionsConfig()
    state: StateConfig = StateConfig()
    chunking: ChunkingConfig = ChunkingConfig()
    calls: Literal["chunked", "every_tick"] = "chunked"
    on_new_subgoal: Literal["finish", "discard"] = "finish"

    def __post_init__(self) -> None:
        if not self.cameras or len(set(self.cameras)) != len(self.cameras):
            raise FieldError(
                "cameras", expected="different camera names", found=list(self.cameras), fix="name each camera once"
            )
        if self.execute > self.horizon:
            raise FieldError(
                "execute",
                expected=f"at most the horizon, {self.horizon}",
                found=self.execute,
                fix="lower `execute` or raise `horizon`",
            )
        check_delta_mask(self.delta_mask, self.actions, self.state)
        if self.actions.relative and self.chunking.kind != "none":
            raise FieldError(
                "chunking.kind",
                expected="`none` with `actions.relative`",
                found=f"`{self.chunking.kind}`",
                fix="steps are counted from the measured pose, so that no chunk can begin with another's commands",
            )
        check_placeholders("prompt", self.prompt, set(), {"goal", "subgoal", "state"})
        if "{subgoal}" not in self.prompt and "{goal}" not in self.prompt:
            raise FieldError(
                "prompt", expected="`{subgoal}` or `{goal}`", found="neither", fix="say what the robot shall do"
            )


class PolicyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One policy YAML: `name`, and the three parts.

    In a file, `based_on: <policy>` stands for the parts that the file does not give.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    memory: MemoryConfig
    high_level: HighLevelConfig
    low_level: LowLevelConfig

    def __post_init__(self) -> None:
        if (self.memory.kind == "none") == self.high_level.asks_vlm:
            raise FieldError(
                "memory.kind",
                expected="`none` exactly when `high_level.source` is not `vlm` or `remote`",
                found=f"`{self.memory.kind}` with `{self.high_level.source}`",
                fix="only a VLM keeps a memory, and needs one: memoryless if nothing is to be kept",
            )
        keyframes = self.memory.keyframes
        if keyframes is None:
            return
        if self.high_level.remote is not None and keyframes.keep != "jpeg":
            raise FieldError(
                "memory.keyframes.keep",
                expected="`jpeg` with `high_level.source: remote`",
                found=f"`{keyframes.keep}`",
                fix="a server is sent pictures, so they must be kept",
            )
        if self.high_level.camera not in keyframes.views:
            raise FieldError(
                "high_level.camera",
                expected=f"one of `memory.keyframes.views`: {', '.join(keyframes.views)}",
                found=f"`{self.high_level.camera}`",
                fix="name the view that the video shall show",
            )
        if self.high_level.frame_size[0] % len(keyframes.views):
            raise FieldError(
                "high_level.image_size",
                expected=f"a height that {len(keyframes.views)} views share evenly",
                found=self.high_level.frame_size[0],
                fix="give [height, width] of the stacked views, e.g. [360, 320] for two",
            )

    @property
    def high_level_cameras(self) -> tuple[str, ...]:
        """The cameras that the high level looks through, in the order in which it shows them."""
        return self.memory.keyframes.views if self.memory.keyframes else (self.high_level.camera,)


def load_policy(path_or_name: str | Path) -> PolicyConfig:
    """The policy of a YAML file, or of a packaged policy when given a bare name such as `am_grounded`.

    Raises MemrtError for an unknown name (listing the known ones), an unreadable file, an unknown key, a wrong value.
    """
    path = _resolve(path_or_name)
    values = read_yaml(path)
    base = values.pop("based_on", None)
    if base is not None:
        values = _parts_of(str(base), str(path)) | values
    policy: PolicyConfig = convert(values, PolicyConfig, str(path))
    return policy


def policy_names() -> list[str]:
    """The packaged policies, sorted."""
    return packaged_names("policies")


def policy_to_dict(policy: PolicyConfig) -> dict[str, Any]:
    """Plain JSON values, every default written out, so that a manifest is complete without this code's defaults."""
    values: dict[str, Any] = msgspec.to_builtins(policy)
    return values


def policy_from_dict(values: Mapping[str, Any], source: str = "manifest") -> PolicyConfig:
    """The inverse of `policy_to_dict`, as strict as `load_policy`."""
    policy: PolicyConfig = convert(values, PolicyConfig, source)
    return policy


def resolve_weights(name: str, root: Path) -> Path:
    """The folder of `weights` or `adapter`: below `root` for a bare name, the path itself otherwise."""
    return Path(name).expanduser() if "/" in name or name.startswith("~") else root / name


def _parts_of(base: str, source: str) -> dict[str, Any]:
    """What the file of the policy `base` gives, but for its name."""
    parts = read_yaml(_resolve(base))
    if "based_on" in parts:
        raise MemrtError(
            f"key `based_on` in {source}",
            expected="a policy that gives all its parts itself",
            found=f"`{base}`, which is based on `{parts['based_on']}`",
            fix=f"write `based_on: {parts['based_on']}`",
        )
    parts.pop("name", None)
    return parts


def _resolve(path_or_name: str | Path) -> Path:
    path = Path(path_or_name).expanduser()
    is_name = isinstance(path_or_name, str) and "/" not in path_or_name and path.suffix not in {".yaml", ".yml"}
    if not is_name:
        return path
    return packaged_file("policies", str(path_or_name), what="policy", file="a policy YAML")
