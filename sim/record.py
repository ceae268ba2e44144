"""Record expert episodes with disturbances as training data for both policies.

The expert runs exactly as a policy will: the subgoal changes only at high-level calls (every 16 control steps), a
chunk is replanned every few steps, commands pass through the seam. What is executed is disturbed; what is recorded
as the label is the expert's undisturbed chunk from the disturbed state, so the data teaches recovery.

A trained low level may move the arm in the expert's place: then both policies are shown the very states that they will
meet, with the same labels as ever (DAgger; Ross, Gordon, Bagnell 2011).
"""

from __future__ import annotations

from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memrt.runtime.bundle import load_bundle
from memrt.runtime.loop.protocols import LowLevel
from memrt.runtime.policy.low_level import LowLevelPolicy
from memrt.runtime.policy.preprocess import resize_with_pad
from memrt.runtime.types import ActionChunk, Observation, Subgoal
from memrt.sim.env import CONTROL_DT_NS, TabletopEnv
from memrt.sim.expert import Expert
from memrt.sim.kinematics import Kinematics
from memrt.sim.tasks.base import Difficulty

HIGH_LEVEL_EVERY = 16  # control steps between high-level calls, as in the reference (report, section 4.2)
SAMPLE_EVERY = 4  # control steps between samples of either level: keyframes are chosen from frames this far apart


@dataclass(frozen=True, slots=True)
class Disturbance:
    """How an episode is disturbed. Joint offsets [rad]; probabilities are per executed chunk."""

    jitter: float = 0.009
    kick: float = 0.10
    kick_probability: float = 0.05
    grip_flip_probability: float = 0.02
    correlation: float = 0.9

    def apply(self, actions: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
        """A disturbed copy of a chunk: coloured joint noise, sometimes a push aside, sometimes a wrong grip."""
        disturbed = actions.copy()
        offset = rng.normal(0, self.jitter, 7)
        if rng.random() < self.kick_probability:
            offset[[0, 1, 3]] += rng.normal(0, self.kick, 3)
        for row in disturbed:
            offset = self.correlation * offset + rng.normal(0, self.jitter * np.sqrt(1 - self.correlation**2), 7)
            row[:7] += offset
        if rng.random() < self.grip_flip_probability:
            disturbed[:, 7] = 1.0 - disturbed[:, 7]
        return disturbed


CALM = Disturbance(jitter=0.003, kick_probability=0.0, grip_flip_probability=0.0)
CALM_SHARE = 1 / 3
# A policy that has not noticed that a step is over goes on with it, and meets what an expert never sees: a hand that
# waits where its work is done. So in a share of the changes the expert goes on too, for a call or two.
LATE_SHARE, LATE_CALLS = 0.4, 2
FLOOR = 0.012  # disturbed chunks that would bring the fingertips lower than this are not executed [m]


@dataclass(frozen=True, slots=True, eq=False)
class LowLevelSample:
    """One training sample of the action expert: resized views, proprioception [8], the expert's chunk [horizon, 8]."""

    images: dict[str, NDArray[np.uint8]]
    proprioception: NDArray[np.float64]
    actions: NDArray[np.float64]
    subgoal_simple: str
    subgoal_grounded: str


@dataclass(frozen=True, slots=True, eq=False)
class HighLevelSample:
    """One training sample of the high level: the front image uint8 [256, 256, 3] and its labels."""

    image: NDArray[np.uint8]
    labels: dict[str, object]


@dataclass(slots=True)
class EpisodeRecord:
    """The samples of one episode, in the order they were taken."""

    task: str
    difficulty: Difficulty | None  # None: recorded elsewhere
    seed: int
    goal: str
    low_level: list[LowLevelSample] = field(default_factory=list)
    high_level: list[HighLevelSample] = field(default_factory=list)
    success: bool = False
    reason: str = ""
    usable: bool = True  # a failed episode teaches what leads to failure, and is not


class EpisodeRecorder:
    """Runs the expert, or the low level that is given, through one episode and keeps the samples."""

    def __init__(
        self,
        env: TabletopEnv,
        seed: int,
        image_size: int,
        disturbance: Disturbance | None = None,
        low_level: LowLevel | None = None,
        steps: int | None = None,
    ) -> None:
        """`steps` ends the recording after so many control steps."""
        self._env = env
        self._steps = steps
        self._low_level = low_level
        self._seed = seed
        self._rng = np.random.Generator(np.random.PCG64([seed, 2]))
        self._image_size = image_size
        calm = self._rng.random() < CALM_SHARE
        self._disturbance = disturbance or (CALM if calm else Disturbance())
        self._expert = Expert(env)
        self._kinematics = Kinematics(env.scene)
        self._texts: dict[int, tuple[str, str]] = {}
        self._followed = -1  # the segment that the arm is told to follow: the task's, or one that it is late to leave
        self._unnoticed: int | None = None  # calls that a change goes unnoticed yet; None: there is no change
        self.record = EpisodeRecord(env.task.name, env.task.difficulty, seed, env.goal)

    def run(self) -> EpisodeRecord:
        """Record until the episode ends, or as far as is wanted."""
        env = self._env
        env.arm()
        replan_at, latched = 0, env.task.step
        latched_texts = ("", "")
        while not env.outcome.ended and (self._steps is None or env.step_index < self._steps):
            k = env.step_index
            observation = env.observe()
            self._sample_high_level(observation)
            if k % HIGH_LEVEL_EVERY == 0 and self._notices(env.task.segment):
                latched, latched_texts = env.task.step, (env.oracle_subgoal("simple"), env.oracle_subgoal("grounded"))
            plan = self._expert.chunk(latched)
            self._sample_low_level(observation, plan, *latched_texts)
            if k >= replan_at:
                env.send(self._moves(observation, plan, latched_texts[1]))
                replan_at = k + int(self._rng.integers(1, 3)) * SAMPLE_EVERY
            env.advance(SAMPLE_EVERY)
        self.record.success = env.outcome.status == "success"
        self.record.reason = env.outcome.reason or f"{self._steps} control steps were wanted"
        self.record.usable &= self.record.success or not env.outcome.ended
        return self.record

    def _moves(self, observation: Observation, plan: NDArray[np.float64], subgoal: str) -> ActionChunk:
        env = self._env
        if self._low_level is None:
            return ActionChunk(self._disturbed(plan), env.t_ns + CONTROL_DT_NS, CONTROL_DT_NS, 0)
        noise = self._low_level.noise(self._seed, env.step_index)
        return self._low_level.act(observation, Subgoal(subgoal, 1, env.t_ns), env.goal, noise).chunk

    def _disturbed(self, plan: NDArray[np.float64]) -> NDArray[np.float64]:
        disturbed = self._disturbance.apply(plan, self._rng)
        lowest = min(self._kinematics.tcp(disturbed[i, :7])[2] for i in (3, 7, 11))
        return disturbed if lowest > FLOOR else plan

    def _sample_low_level(
        self, observation: Observation, plan: NDArray[np.float64], simple: str, grounded: str
    ) -> None:
        images = {name: resize_with_pad(frame.image, self._image_size) for name, frame in observation.frames.items()}
        self.record.low_level.append(LowLevelSample(images, observation.proprioception, plan, simple, grounded))

    def _sample_high_level(self, observation: Observation) -> None:
        env = self._env
        segment = env.task.segment
        self._texts[segment] = (env.oracle_subgoal("simple"), env.oracle_subgoal("grounded"))
        if any(earlier not in self._texts for earlier in range(segment)):
            self.record.usable = False  # a step that was over before it was seen: nothing could be remembered of it
        history = [self._texts.get(s, ("", "")) for s in range(segment)]
        labels: dict[str, object] = {
            "task": self.record.task,
            "difficulty": self.record.difficulty,
            "step": env.step_index,
            "goal": env.goal,
            "subgoal_simple": self._texts[segment][0],
            "subgoal_grounded": self._texts[segment][1],
            "segment": segment,
            # What a policy would remember is what moved the arm until now: between two calls as well as at one. Were it
            # older, pictures of an arm on its way would come with the memory that it is still to leave.
            "previous_segment": self._followed,
            "history_simple": [simple for simple, _ in history],
            "history_grounded": [grounded for _, grounded in history],
            "scene": env.task.describe(env.scene),
        }
        self.record.high_level.append(HighLevelSample(observation.frames["front"].image, labels))

    def _notices(self, segment: int) -> bool:
        """Whether a call tells the arm of `segment`; how many calls a change goes unnoticed is drawn at the first."""
        if segment > self._followed >= 0:
            if self._unnoticed is None:
                late = not self._env.task.timed and self._rng.random() < LATE_SHARE
                self._unnoticed = int(self._rng.integers(1, LATE_CALLS + 1)) if late else 0
            if self._unnoticed > 0:
                self._unnoticed -= 1
                return False
        self._followed, self._unnoticed = segment, None
        return True


def record_episode(
    task: str,
    seed: int,
    image_size: int,
    disturbance: Disturbance | None = None,
    *,
    bundle: Path | None = None,
    steps: int | None = None,
) -> EpisodeRecord:
    """Run one episode, or its first `steps` control steps, and return its samples.

    Low-level images are `image_size` square. The expert moves the arm, disturbed, or the low level of `bundle`, which
    follows grounded subgoals and errs by itself. Raises MemrtError for a bundle without a low level.
    """
    mover = nullcontext() if bundle is None else closing(LowLevelPolicy(load_bundle(bundle)))
    with TabletopEnv(task, seed) as env, mover as low_level:
        return EpisodeRecorder(env, seed, image_size, disturbance, low_level, steps).run()
