"""What a recording says, message by message: JSON on named channels, each with a schema that other tools can read.

Pictures and events use Foxglove's well-known schemas (`foxglove.RawImage`, `foxglove.Log`, docs.foxglove.dev), so a
recording opens there as it is; extra fields beside the well-known ones are memrt's. JSON keeps every float64 exactly:
numbers are written as the shortest text that reads back as the same bits. Only NaN and infinity become null.

Times `t_ns` are those of the robot's clock: monotonic in real time, simulated in lock-step; durations are measured.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np

from memrt.runtime.actions_config import SpaceName
from memrt.runtime.clock import NS_PER_S
from memrt.runtime.types import Frame, ImageArray

FRAMES = "/frames/"  # and the camera's name: one channel per camera
_LEVELS = {"info": 2, "warning": 3, "error": 4}  # foxglove.Log
_HARMLESS = frozenset({"subgoal", "goal", "resume", "home"})  # every other event is at least a warning

Numbers = list[float | None]  # None: not finite


class Time(msgspec.Struct, frozen=True):
    """A time as Foxglove writes it."""

    sec: int
    nsec: int

    @classmethod
    def of(cls, t_ns: int) -> Time:
        """The same from nanoseconds."""
        return cls(*divmod(t_ns, NS_PER_S))


class RawImage(msgspec.Struct, frozen=True, kw_only=True):
    """One frame, every pixel as the camera gave it: uint8 RGB, row by row, base64."""

    timestamp: Time
    frame_id: str
    width: int
    height: int
    encoding: Literal["rgb8"] = "rgb8"
    step: int
    data: bytes
    index: int

    @classmethod
    def of(cls, frame: Frame) -> RawImage:
        """The message of one frame."""
        height, width, _ = frame.image.shape
        return cls(
            timestamp=Time.of(frame.t_ns),
            frame_id=frame.camera,
            width=width,
            height=height,
            step=3 * width,
            data=np.ascontiguousarray(frame.image).tobytes(),
            index=frame.index,
        )

    def frame(self) -> Frame:
        """The frame again, bit for bit."""
        image: ImageArray = np.frombuffer(self.data, np.uint8).reshape(self.height, self.width, 3)
        t_ns = self.timestamp.sec * NS_PER_S + self.timestamp.nsec
        return Frame(self.frame_id, self.index, t_ns, image)


class FrameRef(msgspec.Struct, frozen=True):
    """Names one frame of `/frames/<camera>`."""

    camera: str
    index: int
    t_ns: int


class Look(msgspec.Struct, frozen=True):
    """A past frame that was asked for: the newest of `camera` not younger than `t_ns`, None where it was gone."""

    camera: str
    t_ns: int
    frame: FrameRef | None


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """An observation: float64 [8] joint angles [rad] and gripper opening, frames by name, past ones asked for."""

    t_ns: int
    proprioception: Numbers
    frames: list[FrameRef]
    history: list[Look] | None = None


class HighLevelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One question to the VLM as rendered. `before` is the memory it was asked with; null for a policy without one.

    `ahead_of_ns`: there was no question yet, the VLM only read what was known of call `call`, which will be asked with
    an observation of that time. Null for all others.
    """

    call: int
    t_ns: int
    goal: str
    system: str
    user: str
    observation: Seen
    before: Any
    ahead_of_ns: int | None = None


class HighLevelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it. `cancelled`: there is no answer, and memory stayed as it was. `questions`: how often it asked
    whether it was. Where the VLM is also served elsewhere: `answered_by` is `remote`, `on board`, or "" for nobody, and
    `missed` says why it was not the remote one.

    `stages` are durations [ns], `amounts` numbers of tokens.
    """

    call: int
    t_ns: int
    duration_ns: int
    cancelled: bool = False
    questions: int = 0
    reply: str = ""
    subgoal: str = ""
    held: bool = False
    answered_by: str = ""
    missed: str = ""
    stages: dict[str, int] = {}
    amounts: dict[str, int] = {}


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What the policy remembers after call `call`."""

    call: int
    t_ns: int
    state: Any


class SubgoalFollowed(msgspec.Struct, frozen=True):
    """The subgoal a chunk was computed under."""

    text: str
    revision: int
    t_obs_ns: int


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """`actions` [horizon][8]: joint targets [rad] and gripper opening; action i is meant for `t0_ns + i * dt_ns`.

    Of other action spaces: joint velocities [rad/s], or position [m] and unit quaternion (w, x, y, z) of the tool.
    """

    t0_ns: int
    dt_ns: int
    subgoal_revision: int
    actions: list[Numbers]
    space: SpaceName = "joint_position"


class Playing(msgspec.Struct, frozen=True, kw_only=True):
    """What the robot followed meanwhile, see `runtime.types.PlayingChunk`."""

    times_ns: list[int]
    actions: list[Numbers]
    dt_ns: int
    delay_steps: int


class LowLevelMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One action chunk and all it was computed from: `seed` and `call` name the noise, `playing` is what it continues.

    What became of it is said elsewhere: in `/commands` what was sent, in `/events` why nothing was.
    """

    call: int
    seed: int
    t_ns: int
    duration_ns: int
    goal: str
    subgoal: SubgoalFollowed
    observation: Seen
    playing: Playing | None
    chunk: Chunk
    stages: dict[str, int] = {}


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What was sent to the robot of the chunk of low-level call `call`: its last actions, at the run's speed."""

    call: int
    t_ns: int
    chunk: Chunk


class RobotState(msgspec.Struct, frozen=True, kw_only=True):
    """Where the robot was at `t_obs_ns`, as measured, and what it does with chunks."""

    t_ns: int
    t_obs_ns: int
    mode: str
    proprioception: Numbers


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """One event: `event` and `arguments` for programs, `message` for people."""

    timestamp: Time
    level: int
    message: str
    name: str
    file: str = ""
    line: int = 0
    event: str
    arguments: dict[str, Any]

    @classmethod
    def of(cls, event: str, track: str, t_ns: int, arguments: dict[str, Any]) -> Log:
        """The message of one event of the loop."""
        level = "info" if event in _HARMLESS or (event == "end" and arguments.get("status") == "success") else "warning"
        details = ", ".join(f"{name}: {value}" for name, value in arguments.items())
        return cls(
            timestamp=Time.of(t_ns),
            level=_LEVELS["error" if arguments.get("status") == "fault" else level],
            message=f"{event} ({details})" if details else event,
            name=track,
            event=event,
            arguments=arguments,
        )


# topic: (schema name, message). `/frames/` is followed by the camera's name.
CHANNELS: dict[str, tuple[str, type[msgspec.Struct]]] = {
    FRAMES: ("foxglove.RawImage", RawImage),
    "/state": ("memrt.RobotState", RobotState),
    "/high_level/request": ("memrt.HighLevelRequest", HighLevelRequest),
    "/high_level/answer": ("memrt.HighLevelAnswer", HighLevelAnswer),
    "/memory": ("memrt.Memory", Memory),
    "/low_level": ("memrt.LowLevelCall", LowLevelMessage),
    "/commands": ("memrt.Command", Command),
    "/events": ("foxglove.Log", Log),
}


def channel_of(topic: str) -> tuple[str, type[msgspec.Struct]] | None:
    """Schema name and message of a topic, None for one that is not memrt's."""
    return CHANNELS.get(FRAMES if topic.startswith(FRAMES) else topic)


def json_schema(message: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON Schema of one message, without references: not every reader follows them."""
    (schema,), definitions = msgspec.json.schema_components([message])
    flat = _inlined(schema, definitions)
    assert isinstance(flat, dict)
    return flat


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inlined(entry, definitions) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in schema.items()}
