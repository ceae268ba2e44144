"""Opens a protocol for a pair of policies: keys, conversations, server, from the first warm-up to the last reply."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from memrt.robot_io.serve.conversation import Conversation
from memrt.robot_io.serve.episode import PolicyHost
from memrt.robot_io.serve.keys import KeyMap, Keys
from memrt.robot_io.serve.openpi import OpenpiConversation
from memrt.robot_io.serve.server import Limits, PolicyServer
from memrt.robot_io.serve.vla_eval import VlaEvalConversation
from memrt.runtime.config import PolicyConfig
from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.protocols import HighLevel, LowLevel
from memrt.runtime.loop.realtime import warm_up
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.types import Frame, Observation

LOOPBACK = ("127.0.0.1", "::1", "localhost")
READY_POSE = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785, 1.0])  # Franka's, rad; gripper open


@dataclass(frozen=True, slots=True)
class Serving:
    """Policies behind one protocol. The high level is None where clients name the subgoals themselves."""

    policy: PolicyConfig
    high_level: HighLevel | None
    low_level: LowLevel
    settings: LoopSettings
    keys: Keys
    limits: Limits = field(default_factory=Limits)

    def warm_up(self) -> None:
        """Call both policies for nothing, with black pictures: no client waits for a first call."""
        height, width = self.policy.high_level.frame_size
        black = np.zeros((height, width, 3), np.uint8)
        frames = {camera: Frame(camera, 0, 0, black) for camera in self.cameras}
        warm_up(self.high_level, self.low_level, "begin", Observation(0, READY_POSE, frames), self.settings)

    @property
    def cameras(self) -> tuple[str, ...]:
        """The cameras that a request must show: the high level's counts only where there is one."""
        return self.settings.cameras if self.high_level is not None else self.policy.low_level.cameras

    @property
    def one_client(self) -> bool:
        """Whether only one client can be served at a time: keyframes are kept in the high level, not in its state."""
        return self.high_level is not None and self.policy.memory.kind == "keyframes"

    def server(self) -> PolicyServer:
        """The server, not running yet.

        Raises MemrtError when the keys know no key for a camera of the policy, or clients expect other actions.
        """
        host = PolicyHost(self.high_level, self.low_level, self.settings)
        key_map = KeyMap(self.keys, self.cameras)
        self._check_actions()
        kind = VlaEvalConversation if self.keys.protocol == "vla-eval" else OpenpiConversation

        def converse() -> Conversation:
            return kind(host, key_map, self.policy)

        limits = self.limits
        if self.one_client:
            limits = replace(limits, connections=1)
        return PolicyServer(converse, limits)

    def _check_actions(self) -> None:
        wanted, given = self.keys.actions, self.policy.low_level.actions
        if wanted.space != given.space or wanted.relative:
            steps = " in steps from where the arm is" if wanted.relative else ""
            raise MemrtError(
                "actions of the served policy",
                expected=f"{wanted.space}{steps}, as `actions` of the keys says that clients execute",
                found=f"{given.space}, as the policy `{self.policy.name}` gives",
                fix="correct `actions` in a copy of configs/protocols/*.yaml and give that with --keys, or the client",
            )

    def run(self, host: str, port: int, ready: Callable[[int], None]) -> PolicyServer:
        """Serve until SIGINT or SIGTERM; `ready` is told the port. The server that ran, for its counts."""

        async def serve() -> PolicyServer:
            server, stop, loop = self.server(), asyncio.Event(), asyncio.get_running_loop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, stop.set)
            await server.run(host, port, stop, ready)
            return server

        return asyncio.run(serve())
