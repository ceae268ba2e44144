"""The protocols of openpi's policy server and of RoboMME's, which adds `reset` and `add_buffer` to it.

Each request gets one reply, in order. A refusal is a text frame, as openpi sends its errors; the connection stays.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from memrt.robot_io.serve.arrays import pack, unpack
from memrt.robot_io.serve.episode import Episode, PolicyHost
from memrt.robot_io.serve.keys import KeyMap
from memrt.runtime.config import PolicyConfig
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import PROPRIOCEPTION_DIM, Frame, Observation

NS_PER_MS = 1e6


class OpenpiConversation:
    """One connection, one episode until `{"reset": true}` or another prompt. Answers both protocols' requests."""

    def __init__(self, host: PolicyHost, key_map: KeyMap, policy: PolicyConfig) -> None:
        self._map, self._policy = key_map, policy
        self._episode = Episode(host)
        self._steps = key_map.keys.steps_per_request or policy.low_level.execute
        self._recorded: int | None = None  # control steps that add_buffer has told of, None before the first
        self._last_ms: float | None = None

    def greeting(self) -> bytes:
        """The metadata map."""
        low_level = self._policy.low_level
        return pack(
            {
                "server": "memrt",
                "policy": self._policy.name,
                "protocol": self._map.keys.protocol,
                "cameras": list(self._map.cameras),
                "action_space": self._map.keys.actions.space,
                "action_horizon": low_level.horizon,
                "action_dim": self._map.columns,
                "execute": low_level.execute,
                "control_hz": low_level.control_hz,
            }
        )

    def read(self, data: bytes) -> dict[str, Any]:
        """A request."""
        return unpack(data)

    def supersedes(self, newer: dict[str, Any], waiting: dict[str, Any]) -> None:
        """Never: the client waits for a reply to each."""

    def answer(self, message: dict[str, Any]) -> bytes:
        """The reply to a request."""
        began_ns = time.monotonic_ns()
        if message.get("reset") is True:
            self._episode.restart()
            self._recorded = None
            return pack({"reset_finished": True, "reset_time_ms": (time.monotonic_ns() - began_ns) / NS_PER_MS})
        if message.get("add_buffer") is True:
            self._record(message)
            return pack(
                {"add_buffer_finished": True, "add_buffer_time_ms": (time.monotonic_ns() - began_ns) / NS_PER_MS}
            )
        reply = self._infer(message)
        infer_ms = (time.monotonic_ns() - began_ns) / NS_PER_MS
        reply["infer_time_ms"] = infer_ms  # where RoboMME's client looks
        reply["server_timing"] = {"infer_ms": infer_ms}
        if self._last_ms is not None:
            reply["server_timing"]["prev_total_ms"] = self._last_ms
        packed = pack(reply)
        self._last_ms = (time.monotonic_ns() - began_ns) / NS_PER_MS
        return packed

    def refusal(self, error: MemrtError, message: Any | None) -> str:
        """openpi's clients raise what a text frame says."""
        return str(error)

    def _infer(self, request: dict[str, Any]) -> dict[str, Any]:
        episode, key_map = self._episode, self._map
        goal = key_map.goal(request)
        observation = key_map.observation(request, episode.now_ns, episode.step)
        answer = episode.infer(observation, goal, key_map.subgoal(request, self._policy.memory.subgoal_style))
        if self._recorded is None:
            episode.step += self._steps
        return {
            "actions": key_map.theirs(answer.actions, observation.proprioception),
            "state": observation.proprioception,
            "subgoal": answer.subgoal.text,
            "policy_timing": {
                "infer_ms": (answer.high_level_ns + answer.low_level_ns) / NS_PER_MS,
                "high_level_ms": answer.high_level_ns / NS_PER_MS,
                "low_level_ms": answer.low_level_ns / NS_PER_MS,
            },
        }

    def _record(self, request: dict[str, Any]) -> None:
        """`images` uint8 [t, views, h, w, 3] and `state` [t, 8] are all that happened since the last buffer.

        They tell how many control steps have passed, and show `buffer_cameras` to a high level that looks at frames
        over time. The first buffer ends with the first observation; a demonstration before it is not looked at.
        """
        images, state = request.get("images"), request.get("state")
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 5 or images.shape[-1] != 3:
            raise _refused("images", "uint8 [t, views, height, width, 3]", images)
        if images.size == 0:
            raise _refused("images", "at least one pixel", images)
        if not isinstance(state, np.ndarray) or state.ndim != 2 or len(state) != len(images):
            raise _refused("state", f"[{len(images)}, {PROPRIOCEPTION_DIM}], one row for each image", state)
        episode, cameras = self._episode, self._map.keys.buffer_cameras
        if images.shape[1] < len(cameras):
            raise _refused("images", f"a view of each of {', '.join(cameras)} (`buffer_cameras`)", images)
        before = -1 if self._recorded is None else self._recorded
        self._recorded = 0 if self._recorded is None else before + len(images)
        for index in range(len(images)) if cameras else ():
            episode.step = self._recorded - (len(images) - 1 - index)
            if episode.step > before and episode.looks:
                t_ns, views = episode.now_ns, zip(cameras, images[index], strict=False)
                # Copies: a view would keep the whole message.
                frames = {camera: Frame(camera, episode.step, t_ns, image.copy()) for camera, image in views}
                episode.remember(Observation(t_ns, np.asarray(state[index], np.float64), frames))
        episode.step = self._recorded


def _refused(key: str, expected: str, value: object) -> MemrtError:
    found = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else f"{value!r:.80}"
    return MemrtError(f"add_buffer, `{key}`", expected=expected, found=found, fix="send what RoboMME's client sends")
