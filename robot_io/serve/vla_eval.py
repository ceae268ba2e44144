"""The protocol of the benchmark harness vla-eval: msgpack maps {type, payload, seq, timestamp} over a WebSocket.

Each observation is one control step and gets one action, out of the chunk that is being played. In the harness's live
mode observations come whether or not the last one was answered: then only the newest is, and all count as steps.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from memrt.robot_io.serve.arrays import pack, unpack
from memrt.robot_io.serve.episode import Episode, PolicyHost
from memrt.robot_io.serve.keys import KeyMap
from memrt.runtime.config import PolicyConfig
from memrt.runtime.errors import MemrtError
from memrt.runtime.types import FloatArray

PROTOCOL_VERSION = 1
KINDS = ("hello", "observation", "episode_start", "episode_end", "error")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the client. `skipped`: observations before it that were given up for it."""

    kind: str
    payload: dict[str, Any]
    seq: int
    skipped: int = 0


class VlaEvalConversation:
    """One connection; `episode_start` begins an episode."""

    def __init__(self, host: PolicyHost, key_map: KeyMap, policy: PolicyConfig) -> None:
        self._map, self._policy = key_map, policy
        self._episode = Episode(host)
        self._execute = host.settings.steps_between_calls
        self._actions: FloatArray | None = None
        self._began_at = 0  # the control step of the chunk's first action

    def greeting(self) -> None:
        """The client speaks first."""

    def read(self, data: bytes) -> Message:
        """A message of a known kind, with a map as payload and a number."""
        values = unpack(data)
        kind, payload, seq = values.get("type"), values.get("payload"), values.get("seq")
        if kind not in KINDS:
            raise _refused("type", f"one of {', '.join(KINDS)}", kind)
        if not isinstance(payload, dict):
            raise _refused("payload", "a map", type(payload).__name__)
        if type(seq) is not int:
            raise _refused("seq", "a number", type(seq).__name__)
        return Message(kind, payload, seq)

    def supersedes(self, newer: Message, waiting: Message) -> Message | None:
        """A newer observation makes an older one that waits superfluous, but not the control step it stands for."""
        if newer.kind == waiting.kind == "observation":
            return replace(newer, skipped=newer.skipped + waiting.skipped + 1)
        return None

    def answer(self, message: Message) -> bytes | None:
        """Hello to hello, an action to an observation, nothing to the rest."""
        if message.kind == "hello":
            return _pack("hello", self._hello(message.payload), message.seq)
        if message.kind == "episode_start":
            self._episode.restart()
            self._actions = None
        if message.kind != "observation":
            return None
        action = self._act(message)
        return _pack("action", {"actions": action}, message.seq)

    def refusal(self, error: MemrtError, message: Message | None) -> bytes:
        """An error message with the number of what it answers; 0 when that could not be read."""
        return _pack("error", {"error": str(error)}, 0 if message is None else message.seq)

    def _hello(self, payload: dict[str, Any]) -> dict[str, Any]:
        version = payload.get("protocol_version", PROTOCOL_VERSION)
        if version != PROTOCOL_VERSION:
            raise MemrtError(
                "protocol version", expected=PROTOCOL_VERSION, found=version, fix="use vla-eval 0.8, or a newer memrt"
            )
        return {
            "harness_version": str(payload.get("harness_version", ""))[:64],
            "protocol_version": PROTOCOL_VERSION,
            "model_server": f"memrt {self._policy.name}",
            "capabilities": {},
            "observation_params": self._map.keys.observation_params,
        }

    def _act(self, message: Message) -> FloatArray:
        """The action for this control step, in the harness's numbers, float64 [n].

        It is of a new chunk when `execute` steps of the last are over.
        """
        episode, key_map = self._episode, self._map
        episode.step += message.skipped
        played = episode.step - self._began_at
        over = self._actions is None or played >= self._execute
        if over or episode.looks:  # else the pictures need not be decoded
            goal = key_map.goal(message.payload)
            observation = key_map.observation(message.payload, episode.now_ns, episode.step)
            episode.look(observation, goal, key_map.subgoal(message.payload, self._policy.memory.subgoal_style))
            if over:
                actions, _ = episode.act(observation)
                self._actions = key_map.theirs(actions, observation.proprioception)
                self._began_at, played = episode.step, 0
        assert self._actions is not None, "the first observation of an episode gives a chunk"
        episode.step += 1
        action: FloatArray = self._actions[played]
        return action


def _pack(kind: str, payload: dict[str, Any], seq: int) -> bytes:
    return pack({"type": kind, "payload": payload, "seq": seq, "timestamp": time.time()}, text_keys=True)


def _refused(field: str, expected: str, found: object) -> MemrtError:
    return MemrtError(f"message, `{field}`", expected=expected, found=f"{found!r:.80}", fix="send vla-eval's messages")
