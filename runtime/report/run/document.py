"""What a run's page is told, as a typed document: Python writes it, `page.js` reads it.

Times `_s` are seconds since the run's first message, durations `_ms` milliseconds. Lists are in the order of time, and
bounded: `remarks` say what was left out.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Change = tuple[Literal["=", "+", "-"], str]  # kept, new and gone words of a text
Span = tuple[float, float]  # from, to


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What stands above everything: what was done, by which policy, on which robot, and how it ended."""

    goal: str
    outcome: str
    outcome_by: str
    reason: str
    setting: Literal["simulated", "real", "not recorded"]
    mode: str
    robot: str
    task: str
    policy: str
    precision: str
    bundle: str
    bundle_sha256: str
    device: str
    recorded: str  # date and time, UTC
    versions: dict[str, str]
    seed: str


class Subgoal(msgspec.Struct, frozen=True, kw_only=True):
    """A subgoal while it was followed. Those that differ in coordinates only share their `group`."""

    start_s: float
    end_s: float
    text: str
    group: int
    marks: list[tuple[float, float]]  # where its coordinates are: fractions of the picture's width and height


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call of the high level. `answer_s` is when its subgoal and memory took effect, null if it was cancelled.

    `answered_by` and `missed` are those of `messages.HighLevelAnswer`: where the VLM is also served elsewhere.
    """

    start_s: float
    answer_s: float | None
    duration_ms: float
    stages_ms: dict[str, float]
    tokens: dict[str, int]
    held: bool
    answered_by: str
    missed: str
    prompt: str
    reply: str


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What was remembered from `start_s` on, against what was remembered before. By part: action, spatial, ..."""

    start_s: float
    end_s: float
    subgoal: str
    parts: dict[str, list[Change]]
    boundary: bool  # not only coordinates have changed: a row of the table


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """One call of the low level. `seam` is the jump from what the robot had been told, null where nothing was."""

    start_s: float
    duration_ms: float
    stages_ms: dict[str, float]
    seam: float | None = None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened, as the recording's `/events` say it. `level` is `info`, `warning` or `error`."""

    t_s: float
    level: str
    name: str
    text: str


class Keyframe(msgspec.Struct, frozen=True, kw_only=True):
    """A frame that had votes. `image` numbers the page's pictures, null where its pixels were not recorded."""

    t_s: float
    voted_s: float
    dropped_s: float | None
    image: int | None


class KeyframeState(msgspec.Struct, frozen=True, kw_only=True):
    """The votes from `start_s` on. All numbers index `Keyframes.frames`; each comes with its votes.

    `events` are the keyframes themselves: of every event that is remembered the frame that the VLM is shown, and the
    event's votes. `reserve`: further frames that are kept because they may become one. `voted`: by this answer.
    """

    start_s: float
    events: list[tuple[int, int]]
    reserve: list[tuple[int, int]]
    voted: list[int]
    recent: list[tuple[float, int | None]]  # the recent frames of the question: time, picture


class Keyframes(msgspec.Struct, frozen=True, kw_only=True):
    """A keyframe memory's frames and votes over time."""

    frames: list[Keyframe]
    states: list[KeyframeState]


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Where a camera's picture lies in the video [pixels]."""

    camera: str
    left: int
    width: int
    height: int


class Video(msgspec.Struct, frozen=True, kw_only=True):
    """The clip's geometry. Its pictures are those that were recorded, repeated at `fps`."""

    width: int
    height: int
    fps: int
    frames: int
    views: list[View]


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the latency table [ms]."""

    stage: str
    count: int
    p50: float
    p90: float
    p99: float
    max: float


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything on the page but pixels. `figures` are counts and measures by name."""

    about: About
    duration_s: float
    remarks: list[str]
    subgoals: list[Subgoal]
    calls: list[Call]
    memories: list[Memory]
    chunks: list[Chunk]
    seam_unit: str
    events: list[Event]
    holds: list[Span]
    keyframes: Keyframes | None
    video: Video | None
    latencies: list[Latency]
    figures: dict[str, Any]

    def summary(self) -> dict[str, Any]:
        """What it holds, for programs that want no page."""
        return {
            "outcome": self.about.outcome,
            "setting": self.about.setting,
            "policy": self.about.policy,
            "bundle_sha256": self.about.bundle_sha256,
            "versions": self.about.versions,
            "duration_s": self.duration_s,
            "subgoals": len(self.subgoals),
            "calls": len(self.calls),
            "memory_changes": sum(memory.boundary for memory in self.memories),
            "keyframes": len(self.keyframes.frames) if self.keyframes else 0,
            "chunks": len(self.chunks),
            "events": len(self.events),
            "holds": len(self.holds),
            "video_frames": self.video.frames if self.video else 0,
            "remarks": self.remarks,
        }
