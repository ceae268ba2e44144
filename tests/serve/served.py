"""Policies that remember a count and nothing else, and a server in a thread for clients to talk to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np
from websockets.sync.client import ClientConnection, connect

from memrt.robot_io.serve.keys import load_keys
from memrt.robot_io.serve.server import Limits, PolicyServer
from memrt.robot_io.serve.serving import Serving
from memrt.runtime.config import PolicyConfig, load_policy
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.types import ActionChunk, Observation, Subgoal

POLICY = load_policy("am_grounded")
SETTINGS = LoopSettings.from_policy(POLICY)


@dataclass(frozen=True)
class Reply:
    state: int
    subgoal: str
    held: bool = False


@dataclass(frozen=True)
class ChunkReply:
    chunk: ActionChunk


@dataclass
class CountingHighLevel:
    """Remembers how often it was asked in this episode. `begun` counts episodes, and prefixes forgotten."""

    begun: int = 0
    calls: list[tuple[str, int]] = field(default_factory=list)

    def initial(self) -> int:
        self.begun += 1
        return 0

    def call(self, goal: str, observation: Observation, state: int, **_: object) -> Reply:
        self.calls.append((goal, state))
        return Reply(state + 1, f"{goal}, part {state + 1}")


@dataclass
class EchoingLowLevel:
    """Chunks that stay where the arm is; the third column says how many actions ahead, the second the call's noise.

    `entered` and `proceed` let a test hold a call; `fault` is raised, or "nan" put into the chunk.
    """

    fault: str = ""
    held: bool = False
    entered: threading.Event = field(default_factory=threading.Event)
    proceed: threading.Event = field(default_factory=threading.Event)
    subgoals: list[Subgoal] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)

    def noise(self, seed: int, call_index: int) -> np.ndarray:
        return np.full((SETTINGS.horizon, 8), call_index, np.float32)

    def act(self, observation: Observation, subgoal: Subgoal, goal: str, noise: np.ndarray, **_: object) -> ChunkReply:
        self.subgoals.append(subgoal)
        self.observations.append(observation)
        self.entered.set()
        if self.held:
            assert self.proceed.wait(60)
        if self.fault and self.fault != "nan":
            raise RuntimeError(self.fault)
        actions = np.tile(observation.proprioception, (SETTINGS.horizon, 1))
        actions[:, 1] = noise[:, 0]
        actions[:, 2] = np.arange(SETTINGS.horizon)
        actions[:, 3] = np.nan if self.fault == "nan" else 0.0
        dt_ns = SETTINGS.dt_ns
        return ChunkReply(ActionChunk(actions, observation.t_ns + dt_ns, dt_ns, subgoal.revision))


@dataclass
class Served:
    port: int
    server: PolicyServer
    high_level: CountingHighLevel
    low_level: EchoingLowLevel
    stack: ExitStack

    def connect(self, **arguments: object) -> ClientConnection:
        client = connect(f"ws://127.0.0.1:{self.port}", compression=None, max_size=None, **arguments)
        return self.stack.enter_context(client)


@contextmanager
def served(
    keys_name: str, *, policy: PolicyConfig = POLICY, high_level: bool = True, port: int = 0, **limits: object
) -> Iterator[Served]:
    """A server of the protocol that the packaged keys are of, on a free port of the loopback."""
    high, low = CountingHighLevel(), EchoingLowLevel()
    keys = load_keys(keys_name)
    server = Serving(policy, high if high_level else None, low, SETTINGS, keys, Limits(**limits)).server()
    ready, ports, ends = threading.Event(), [], []

    async def run() -> None:
        stop = asyncio.Event()
        ends.append((asyncio.get_running_loop(), stop))
        await server.run("127.0.0.1", port, stop, lambda port: (ports.append(port), ready.set()))

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert ready.wait(60)
        with ExitStack() as stack:
            yield Served(ports[0], server, high, low, stack)
    finally:
        low.proceed.set()
        loop, stop = ends[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        assert not thread.is_alive()


def picture(value: int = 0, size: int = 24) -> np.ndarray:
    return np.full((size, size, 3), value, np.uint8)


STATE = np.array([0.1, 0.2, 0.3, -2.0, 0.5, 0.6, 0.7, 0.25])


def openpi_request(goal: str = "press the button", state: np.ndarray = STATE, **more: object) -> dict[str, object]:
    """As openpi's DROID examples send it; DROID's gripper counts from open to closed."""
    return {
        "observation/exterior_image_1_left": picture(10),
        "observation/wrist_image_left": picture(20),
        "observation/joint_position": state[:7],
        "observation/gripper_position": 1.0 - state[7:],
        "prompt": goal,
        **more,
    }


def robomme_request(goal: str = "press the button", state: np.ndarray = STATE, **more: object) -> dict[str, object]:
    return {
        "observation/image": picture(10),
        "observation/wrist_image": picture(20),
        "observation/state": state,
        "prompt": goal,
        **more,
    }


def vla_eval_observation(goal: str = "press the button", state: np.ndarray = STATE) -> dict[str, object]:
    return {"images": {"agentview": picture(10), "wrist": picture(20)}, "states": state, "task_description": goal}
