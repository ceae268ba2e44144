"""Which key of a protocol's messages holds what: data, from `configs/protocols/*.yaml`, read in both directions.

A server turns requests into observations and chunks into replies with it, a client observations into requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from memrt.robot_io.serve.images import MAX_SIDE, decode_image, is_encoded
from memrt.runtime.actions_config import ActionsConfig, GripperRange
from memrt.runtime.errors import MemrtError
from memrt.runtime.packaged import packaged_file
from memrt.runtime.policy.actions import ActionLayout
from memrt.runtime.policy.preprocess import resize_with_pad
from memrt.runtime.strict_config import FieldError, convert, read_yaml
from memrt.runtime.types import ARM_JOINTS, ActionSpace, FloatArray, Frame, ImageArray, Observation, Subgoal

ProtocolName = Literal["openpi", "robomme", "vla-eval"]
Key = str | tuple[str, ...]  # a key of the message, or the keys of maps within maps, outermost first
MAX_TEXT = 4096  # characters of a goal or subgoal
MAX_VALUES = 256  # of one proprioception array


class GripperKey(GripperRange, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the measured gripper is: value `index` of the array at `key`."""

    key: Key
    index: Annotated[int, msgspec.Meta(ge=0, lt=MAX_VALUES)] = 0


class Keys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One YAML file. `cameras` go by the policy's names; `joints` is an array that begins with the seven joints [rad].

    `actions` says what their action numbers mean, as in a policy's YAML.
    `subgoal`: where a client puts subgoals of its own, by style; one that comes replaces the high level's. `goal` is
    the task in words. As a client we send `prompt` there: a template of `{goal}` and `{subgoal}`.
    """

    protocol: ProtocolName
    cameras: dict[str, Key]
    joints: Key
    gripper: GripperKey
    goal: Key = "prompt"
    subgoal: dict[Literal["simple", "grounded"], Key] = {}
    actions: ActionsConfig = ActionsConfig()
    # Control steps between two requests, by default the policy's `execute`. A vla-eval request is always one step.
    steps_per_request: Annotated[int, msgspec.Meta(ge=1)] | None = None
    buffer_cameras: tuple[str, ...] = ()  # robomme: whose pictures the views of `add_buffer` are, in order
    observation_params: dict[str, bool] = {}  # vla-eval: what the benchmark is asked to send
    prompt: str = "{subgoal}"
    send_image_size: Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE)] | None = None  # client: resized with padding

    def __post_init__(self) -> None:
        try:
            self.prompt.format(goal="", subgoal="")
        except (KeyError, IndexError, ValueError):
            raise FieldError(
                "prompt", expected="at most {goal} and {subgoal}", found=repr(self.prompt), fix="correct the template"
            ) from None


def load_keys(path_or_name: str | Path) -> Keys:
    """The mapping of a YAML file, or a packaged one by its bare name, e.g. `openpi` or `robomme`.

    Raises MemrtError for an unknown name (listing the known ones), an unreadable file, an unknown key, a wrong value.
    """
    path = Path(path_or_name).expanduser()
    if len(path.parts) == 1 and path.suffix not in {".yaml", ".yml"}:
        path = packaged_file("protocols", str(path_or_name), what="keys", file="a YAML file")
    return convert(read_yaml(path), Keys, str(path))


class KeyMap:
    """A mapping bound to what one policy needs: its cameras, in whose order frames are read."""

    def __init__(self, keys: Keys, cameras: Iterable[str]) -> None:
        """Raises MemrtError when the mapping knows no key for a camera of the policy."""
        self.keys, self.cameras = keys, tuple(cameras)
        self._layout = ActionLayout(keys.actions)
        if missing := [camera for camera in self.cameras if camera not in keys.cameras]:
            raise MemrtError(
                f"keys of protocol {keys.protocol}",
                expected=f"a key for each camera of the policy: {', '.join(self.cameras)}",
                found=f"none for {', '.join(missing)}",
                fix="copy configs/protocols/*.yaml, add the camera under `cameras`, and give it with --keys",
            )

    def observation(self, request: Mapping[str, Any], t_ns: int, index: int) -> Observation:
        """What `request` shows, taken at `t_ns`; frames get the number `index`.

        Raises MemrtError naming the key that is missing or does not hold what it must.
        """
        frames = {
            camera: Frame(camera, index, t_ns, _image(_get(request, key := self.keys.cameras[camera], camera), key))
            for camera in self.cameras
        }
        return Observation(t_ns, self.proprioception(request), frames)

    def proprioception(self, request: Mapping[str, Any]) -> FloatArray:
        """float64 [8]: seven joints [rad] and the gripper's opening."""
        keys = self.keys
        joints = _vector(request, keys.joints, "the joint angles", ARM_JOINTS)
        measured = _vector(request, keys.gripper.key, "the gripper", keys.gripper.index + 1)
        opening = keys.gripper.opening(measured[keys.gripper.index : keys.gripper.index + 1])
        return np.concatenate([joints[:ARM_JOINTS], opening])

    def goal(self, request: Mapping[str, Any]) -> str:
        """The task in words."""
        return _text(_get(request, self.keys.goal, "the task in words"), self.keys.goal)

    def subgoal(self, request: Mapping[str, Any], style: Literal["simple", "grounded"]) -> str:
        """The client's own subgoal, "" when it sends none."""
        key = self.keys.subgoal.get(style)
        if key is None or (value := _find(request, key)) is None:
            return ""
        return _text(value, key)

    @property
    def space(self) -> ActionSpace:
        """What the other side's actions mean."""
        return self._layout.space

    def theirs(self, actions: FloatArray, proprioception: FloatArray) -> FloatArray:
        """Our actions [horizon, 8] in the other side's numbers; `proprioception` is the observation's, float64 [8]."""
        return self._layout.own(actions, proprioception)

    def ours(self, actions: NDArray[Any], proprioception: FloatArray) -> FloatArray:
        """The inverse of `theirs`. Of more columns than theirs has the first ones are taken, the gripper last."""
        return self._layout.chunk(np.asarray(actions[:, : self._layout.dimensions], np.float64), proprioception)

    @property
    def columns(self) -> int:
        """How many numbers an action of theirs has."""
        return self._layout.dimensions

    def request(self, observation: Observation, goal: str, subgoal: Subgoal) -> dict[str, Any]:
        """The message that shows `observation` to another's server."""
        keys = self.keys
        message: dict[str, Any] = {}
        for camera in self.cameras:
            image = observation.frames[camera].image
            size = keys.send_image_size
            _put(message, keys.cameras[camera], image if size is None else resize_with_pad(image, size))
        state = observation.proprioception
        gripper = keys.gripper.theirs(state[ARM_JOINTS:])
        if keys.gripper.key == keys.joints:
            _put(message, keys.joints, np.concatenate([state[:ARM_JOINTS], gripper]))
        else:
            _put(message, keys.joints, state[:ARM_JOINTS].copy())
            _put(message, keys.gripper.key, gripper)
        _put(message, keys.goal, keys.prompt.format(goal=goal, subgoal=subgoal.text))
        for key in keys.subgoal.values():
            _put(message, key, subgoal.text)
        return message


def _path(key: Key) -> tuple[str, ...]:
    return (key,) if isinstance(key, str) else key


def _find(request: Mapping[str, Any], key: Key) -> Any:
    value: Any = request
    for part in _path(key):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def _get(request: Mapping[str, Any], key: Key, what: str) -> Any:
    value = _find(request, key)
    if value is None:
        found = ", ".join(f"`{str(name)[:64]}`" for name in list(request)[:16]) or "an empty message"
        raise MemrtError(
            "request",
            expected=f"`{'.'.join(_path(key))}` ({what})",
            found=found,
            fix="send it, or name your own key in a copy of configs/protocols/*.yaml and give that with --keys",
        )
    return value


def _put(message: dict[str, Any], key: Key, value: Any) -> None:
    *outer, last = _path(key)
    for part in outer:
        message = message.setdefault(part, {})
    message[last] = value


def _image(value: Any, key: Key) -> ImageArray:
    image = decode_image(value) if is_encoded(value) else value
    is_rgb = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    if is_rgb and all(1 <= side <= MAX_SIDE for side in image.shape[:2]):
        return np.ascontiguousarray(image)
    raise _wrong(key, f"a uint8 RGB image [height, width, 3] of at most {MAX_SIDE} pixels a side", image)


def _vector(request: Mapping[str, Any], key: Key, what: str, least: int) -> FloatArray:
    value = _get(request, key, what)
    expected = f"{least} or more finite numbers ({what})"
    if isinstance(value, list) and not all(type(item) in (int, float) for item in value[: MAX_VALUES + 1]):
        raise _wrong(key, expected, value)
    if not isinstance(value, np.ndarray | list | int | float):
        raise _wrong(key, expected, value)
    try:
        numbers = np.atleast_1d(np.asarray(value, np.float64))
    except (OverflowError, ValueError, TypeError):  # an integer beyond what a float holds
        raise _wrong(key, expected, value) from None
    if numbers.ndim != 1 or not least <= len(numbers) <= MAX_VALUES or not np.isfinite(numbers).all():
        raise _wrong(key, expected, value)
    return numbers


def _text(value: Any, key: Key) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_TEXT:
        raise _wrong(key, f"a text of 1 to {MAX_TEXT} characters", value)
    return value


def _wrong(key: Key, expected: str, value: Any) -> MemrtError:
    found = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else f"{value!r:.80}"
    return MemrtError(f"request, `{'.'.join(_path(key))}`", expected=expected, found=found, fix="correct the client")
