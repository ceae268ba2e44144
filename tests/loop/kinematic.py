"""A kinematic arm behind the real seam, with a task that needs a count: swing left and right so many times."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from memrt.runtime._core import Seam, SeamLimits
from memrt.runtime.clock import Clock, VirtualClock
from memrt.runtime.types import ActionChunk, Frame, Observation, RobotMode, Subgoal

DT_NS = 50_000_000
HOME = np.array([0.0, -0.5, 0.0, -2.0, 0.0, 1.5, 0.7])
LEFT, RIGHT, REACHED = 0.4, -0.4, 0.05  # of the first joint [rad]


@dataclass
class Outcome:
    status: str = "running"
    reason: str = ""


class KinematicRobot:
    """Joints follow the seam's commands exactly. Time is the clock's; the picture shows the first joint as a grey."""

    def __init__(self, clock: Clock, swings: int = 2, refusals_raise: bool = False) -> None:
        self.clock, self.swings_left, self.refusals_raise = clock, swings, refusals_raise
        self.seam = Seam(SeamLimits.fr3())
        self.seam.reset(HOME, 1.0, clock.now_ns())
        self.mode, self.fault_reason, self.outcome = RobotMode.DISARMED, "", Outcome()
        self.refused_in_a_row, self.statistics = 0, {}
        self.sent: list[ActionChunk] = []
        self.camera_works = True
        self._side = LEFT
        self._frame: Frame | None = None
        self._look()

    def observe(self) -> Observation:
        q = self._look()
        frames = {"front": self._frame} if self._frame else {}
        return Observation(self.clock.now_ns(), np.append(q, 1.0), frames)

    def send(self, chunk: ActionChunk) -> None:
        self.sent.append(chunk)
        if self.mode is RobotMode.RUNNING:
            refusal = self.seam.push(np.ascontiguousarray(chunk.actions), chunk.t0_ns, chunk.dt_ns)
            self.refused_in_a_row = self.refused_in_a_row + 1 if refusal else 0
            if refusal and self.refusals_raise:
                raise ValueError(refusal)

    def advance(self, steps: int) -> None:
        assert isinstance(self.clock, VirtualClock)
        for _ in range(steps):
            for _ in range(5):
                self.clock.advance(DT_NS // 5)
                self._look()

    def arm(self) -> None:
        self.mode = RobotMode.RUNNING

    def stop(self) -> None:
        self.seam.stop(self.clock.now_ns())
        if self.mode is RobotMode.RUNNING:
            self.mode = RobotMode.STOPPED

    def resume(self) -> None:
        self.seam.resume()
        self.mode = RobotMode.RUNNING

    def home(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _look(self) -> np.ndarray:
        now_ns = self.clock.now_ns()
        q = np.array(self.seam.step(now_ns)[0])
        if abs(q[0] - self._side) < REACHED:
            self._side = -self._side
            self.swings_left -= 1
            if self.swings_left == 0:
                self.outcome = Outcome("success", "swung as often as asked")
        if self.camera_works and (self._frame is None or now_ns > self._frame.t_ns):
            index = 0 if self._frame is None else self._frame.index + 1
            image = np.full((4, 4, 3), int(128 + 100 * q[0]), np.uint8)
            image[0, 0] = index % 251  # sensor noise: no two pictures of a real camera are the same
            self._frame = Frame("front", index, now_ns, image)
        return q


@dataclass(frozen=True)
class Memory:
    swings: int = 0
    subgoal: str = "swing left"


@dataclass(frozen=True)
class Reply:
    state: Memory
    subgoal: str
    held: bool = False


@dataclass
class SwingHighLevel:
    """Remembers how often it has swung: from one picture alone the side to go to cannot be told."""

    calls: int = 0
    delay_ns: int = 0
    clock: VirtualClock | None = None

    def initial(self) -> Memory:
        return Memory()

    def call(self, goal: str, observation: Observation, state: Memory, *, cancelled=None) -> Reply:
        self.calls += 1
        if self.clock is not None:
            self.clock.advance(self.delay_ns)
        side = LEFT if state.subgoal == "swing left" else RIGHT
        if abs(observation.proprioception[0] - side) < REACHED:
            other = "swing right" if state.subgoal == "swing left" else "swing left"
            state = Memory(state.swings + 1, other)
        return Reply(state, state.subgoal)


@dataclass(frozen=True)
class ChunkReply:
    chunk: ActionChunk


@dataclass
class SwingLowLevel:
    """Moves the first joint at 0.8 rad/s towards the side the subgoal names; the noise shows in the actions."""

    horizon: int = 16
    spoil: float | None = None
    delay_ns: int = 0
    clock: VirtualClock | None = None
    subgoals: list[Subgoal] = field(default_factory=list)

    def noise(self, seed: int, call_index: int) -> np.ndarray:
        rng = np.random.Generator(np.random.Philox(key=[seed, call_index]))
        return rng.standard_normal((self.horizon, 8)).astype(np.float32)

    def act(
        self, observation: Observation, subgoal: Subgoal, goal: str, noise: np.ndarray, *, playing=None
    ) -> ChunkReply:
        self.subgoals.append(subgoal)
        if self.clock is not None:
            self.clock.advance(self.delay_ns)
        now = observation.proprioception
        side = (LEFT if "left" in subgoal.text else RIGHT) - now[0]
        actions = np.tile(now, (self.horizon, 1))
        actions[:, 0] += np.sign(side) * np.minimum(0.04 * np.arange(1, self.horizon + 1), abs(side))
        actions[:, 1] += 1e-4 * noise[:, 1]
        if self.spoil is not None:
            actions[3, 2] = self.spoil
        return ChunkReply(ActionChunk(actions, observation.t_ns + DT_NS, DT_NS, subgoal.revision))
