"""Another's openpi policy server as our low level: the loop asks it for chunks as it would ask the bundle's engines.

One request is under way at a time, and none is waited for longer than the settings say. Then the connection is closed,
since its late reply would be taken for the next one's, the loop is told that there is no chunk (`LateChunkError`), and
the next call connects again, trying ever less often until its own time is over.
"""

from __future__ import annotations

import http.client
import socket
import struct
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from memrt.robot_io.config import PolicyServerConfig
from memrt.robot_io.serve.arrays import pack, unpack
from memrt.robot_io.serve.keys import KeyMap, load_keys
from memrt.runtime.config import LowLevelConfig
from memrt.runtime.errors import MemrtError
from memrt.runtime.loop.protocols import LateChunkError
from memrt.runtime.types import PROPRIOCEPTION_DIM, ActionChunk, FloatArray, Observation, PlayingChunk, Subgoal

NS_PER_S = 1_000_000_000
MAX_REPLY_BYTES = 4 << 20  # a chunk of 128 actions has 8 KiB
FIRST_WAIT_S, LONGEST_WAIT_S = 0.05, 1.0  # between two attempts to connect, doubled after each


@dataclass(frozen=True, slots=True, eq=False)
class RemoteResult:
    """One call's chunk, and what the server said about it (`policy_timing`, ... as it sent them)."""

    chunk: ActionChunk
    told: dict[str, Any]


class RemoteLowLevel:
    """Implements the loop's `LowLevel` with an openpi policy server; one thread owns it.

    `metadata` is what the server said when it was first connected to.
    """

    def __init__(self, server: PolicyServerConfig, settings: LowLevelConfig) -> None:
        """Check the server's health and connect. Raises MemrtError when it cannot be used, with the reason."""
        self._server, self._settings = server, settings
        if settings.chunking.kind != "none":
            raise MemrtError(
                "low level on a policy server",
                expected="`low_level.chunking.kind: none`: the protocol cannot say what is being executed",
                found=f"`{settings.chunking.kind}`",
                fix="set it to `none` in the policy's YAML, and export",
            )
        self._map = KeyMap(load_keys(server.keys), settings.cameras)
        self._dt_ns = round(NS_PER_S / settings.control_hz)
        self._stack = ExitStack()
        self._connection: ClientConnection | None = None
        self._has_answered = False  # before that, a call may take `connect_ms`: servers compile at the first one
        self.metadata: dict[str, Any] = {}
        self._check_health()
        try:
            self._connected(time.monotonic() + server.connect_ms / 1e3)
        except LateChunkError as missed:
            raise self._unusable(missed.found) from missed
        self._check_space(server.keys)

    def noise(self, seed: int, call_index: int) -> NDArray[np.float32]:
        """Zeros: the server draws its own noise, so the same arguments do not give the same chunk."""
        return np.zeros((self._settings.horizon, PROPRIOCEPTION_DIM), np.float32)

    def act(
        self,
        observation: Observation,
        subgoal: Subgoal,
        goal: str,
        noise: NDArray[np.float32],
        *,
        playing: PlayingChunk | None = None,
    ) -> RemoteResult:
        """The server's chunk, timed from `observation`; what shape it has is for the loop to refuse.

        Raises LateChunkError when none came in time, and MemrtError when the server refuses the very first request or
        answers it with something that is no chunk of this policy: then it never will.
        """
        server = self._server
        wait_ms = server.timeout_ms if self._has_answered else server.connect_ms
        deadline = time.monotonic() + wait_ms / 1e3
        request = pack(self._map.request(observation, goal, subgoal))
        try:
            connection = self._connected(deadline)
            connection.send(request)
            reply = connection.recv(max(0.0, deadline - time.monotonic()))
        except (OSError, WebSocketException) as error:  # a TimeoutError is an OSError
            self._drop()
            raise self._missed(f"{type(error).__name__} after {wait_ms:g} ms at most: {error}") from error
        told = self._understood(reply)
        actions = self._actions(told, observation.proprioception)
        self._has_answered = True
        return RemoteResult(
            ActionChunk(actions, observation.t_ns + self._dt_ns, self._dt_ns, subgoal.revision, self._map.space),
            {key: value for key, value in told.items() if key != "actions"},
        )

    def close(self) -> None:
        """Close the connection."""
        self._drop()

    def _check_space(self, keys: str) -> None:
        """Servers of ours say what their actions mean; openpi's do not."""
        said, wanted = self.metadata.get("action_space"), self._map.keys.actions.space
        if said in (None, wanted):
            return
        self._drop()
        raise MemrtError(
            f"policy server {self._server.url}",
            expected=f"actions of space {wanted}, as `actions` of the keys `{keys}` says",
            found=f"{said!r:.80}, as the server says",
            fix="correct `actions.space` in the keys, or name the keys that belong to this server",
        )

    def _check_health(self) -> None:
        address = urlsplit(self._server.url)
        probe = http.client.HTTPConnection(address.hostname or "", address.port or 80, timeout=5.0)
        try:
            probe.request("GET", "/healthz")
            status = probe.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            raise self._unusable(f"{type(error).__name__}: {error}") from error
        finally:
            probe.close()
        if status != http.client.OK:
            raise self._unusable(f"HTTP {status} from its /healthz")

    def _connected(self, deadline: float) -> ClientConnection:
        """The connection, made again until `deadline` if it was lost. Raises LateChunkError."""
        server, wait = self._server, FIRST_WAIT_S
        while self._connection is None:
            left = max(0.001, deadline - time.monotonic())
            try:
                connection = self._stack.enter_context(
                    connect(
                        server.url,
                        compression=None,
                        max_size=MAX_REPLY_BYTES,
                        open_timeout=left,
                        close_timeout=0.1,
                        ping_interval=None,  # openpi's server is silent while it computes
                        proxy=None,  # a robot's network has none
                    )
                )
                seconds, ms = divmod(int(server.timeout_ms), 1000)
                send_limit = struct.pack("ll", seconds, 1000 * ms)  # struct timeval: seconds, microseconds
                connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, send_limit)
                metadata = connection.recv(max(0.0, deadline - time.monotonic()))
                self.metadata = unpack(metadata) if isinstance(metadata, bytes) else {}
                self._connection = connection
            except (OSError, WebSocketException, MemrtError) as error:
                self._drop()
                if deadline - time.monotonic() <= wait:
                    raise self._missed(f"no connection: {type(error).__name__}: {error}") from error
                time.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT_S)
        return self._connection

    def _drop(self) -> None:
        self._connection = None
        self._stack.close()

    def _understood(self, reply: str | bytes) -> dict[str, Any]:
        try:
            if isinstance(reply, str):  # how openpi's server tells an error
                raise MemrtError(
                    f"policy server {self._server.url}",
                    expected="a chunk",
                    found=f"its error: {reply.strip()[-500:]}",
                    fix="correct the keys in `policy_server.keys`, or look at the server",
                )
            return unpack(reply)
        except MemrtError as error:
            self._drop()  # openpi's server closes after an error
            if self._has_answered:
                raise self._missed(error.found) from error
            raise

    def _actions(self, told: dict[str, Any], proprioception: FloatArray) -> FloatArray:
        actions, horizon = told.get("actions"), self._settings.horizon
        rows: NDArray[Any] = actions if isinstance(actions, np.ndarray) and actions.dtype.kind in "fiu" else np.empty(0)
        columns = self._map.columns
        if rows.ndim == 2 and rows.shape[1] >= columns and (self._has_answered or len(rows) == horizon):
            return self._map.ours(rows, proprioception)
        if self._has_answered:
            return np.empty((0, PROPRIOCEPTION_DIM))
        found = f"`actions` {list(actions.shape)}" if isinstance(actions, np.ndarray) else f"{sorted(told)}"
        raise MemrtError(
            f"policy server {self._server.url}",
            expected=f"`actions` [{horizon}, {columns} or more], as `low_level.horizon` says",
            found=found,
            fix="name the policy that belongs to this server, or correct its horizon",
        )

    def _missed(self, why: object) -> LateChunkError:
        return LateChunkError(
            f"policy server {self._server.url}",
            expected=f"a chunk within {self._server.timeout_ms:g} ms",
            found=why,
            fix="bring the server nearer, or raise `policy_server.timeout_ms`",
        )

    def _unusable(self, why: object) -> MemrtError:
        return MemrtError(
            f"policy server {self._server.url}",
            expected="an openpi policy server that answers GET /healthz",
            found=why,
            fix="start it, or correct `policy_server.url` in the robot's YAML",
        )
