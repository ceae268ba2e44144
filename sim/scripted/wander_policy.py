"""A stream of action chunks at 50 Hz that goes nowhere in particular: smooth, seeded, with a policy's seams."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from memrt.runtime.clock import NS_PER_S
from memrt.runtime.loop.protocols import NoiseArray
from memrt.runtime.types import ARM_JOINTS, PROPRIOCEPTION_DIM, ActionChunk, Observation, PlayingChunk, Subgoal
from memrt.sim import fr3
from memrt.sim.scripted.expert_policy import ScriptedReply

HORIZON = 50
DT_NS = 20_000_000  # 50 Hz
WAVES = 3  # per joint
FREQUENCIES = (0.03, 0.25)  # [Hz]
REACH = np.array([0.25, 0.12, 0.25, 0.12, 0.30, 0.20, 0.40])  # [rad] from the start posture, at most
RANGE_KEPT = 0.3  # [rad] from the end of a joint's range
RETURN_S = 0.8  # a chunk begins where the arm is, and is back on its way after about this long
SEAM = 0.003  # [rad], spread of what one chunk is off from the next


class WanderLowLevel:
    """Implements the loop's `LowLevel`: three sines per joint around where it saw the arm first.

    Every chunk begins at the measured posture, which lags behind, and is a little off by itself: no two chunks meet.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.Generator(np.random.PCG64([seed, 5]))
        self._omega = 2 * np.pi * self._rng.uniform(*FREQUENCIES, (WAVES, ARM_JOINTS))
        self._phase = self._rng.uniform(0, 2 * np.pi, (WAVES, ARM_JOINTS))
        self._middle: NDArray[np.float64] | None = None
        self._start_ns = 0

    def noise(self, seed: int, call_index: int) -> NoiseArray:
        """What this chunk is off by, in units of its spread, the same in all of its actions."""
        rng = np.random.Generator(np.random.PCG64([seed, call_index]))
        return np.repeat(rng.standard_normal((1, PROPRIOCEPTION_DIM)), HORIZON, axis=0).astype(np.float32)

    def act(
        self,
        observation: Observation,
        subgoal: Subgoal,
        goal: str,
        noise: NoiseArray,
        *,
        playing: PlayingChunk | None = None,
    ) -> ScriptedReply:
        """One second of the way. The gripper stays as it is found."""
        q, opening = observation.proprioception[:ARM_JOINTS], observation.proprioception[ARM_JOINTS]
        if self._middle is None:
            low, high = np.array(fr3.Q_MIN) + RANGE_KEPT + REACH, np.array(fr3.Q_MAX) - RANGE_KEPT - REACH
            self._middle, self._start_ns = np.clip(q, low, high), observation.t_ns
        since_s = (observation.t_ns - self._start_ns) / NS_PER_S
        ahead_s = np.arange(1, HORIZON + 1) * (DT_NS / NS_PER_S)
        away = q - self._way(np.array([since_s]))[0]
        actions = np.empty((HORIZON, PROPRIOCEPTION_DIM))
        actions[:, :ARM_JOINTS] = self._way(since_s + ahead_s) + away * np.exp(-ahead_s / RETURN_S)[:, None]
        actions[:, :ARM_JOINTS] += SEAM * np.clip(noise[:, :ARM_JOINTS], -2.0, 2.0)
        actions[:, ARM_JOINTS] = np.clip(opening, 0.0, 1.0)
        return ScriptedReply(ActionChunk(actions, observation.t_ns + DT_NS, DT_NS, subgoal.revision))

    def close(self) -> None:
        """Nothing is held."""

    def _way(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where the joints are meant to be, float64 [n, 7]."""
        assert self._middle is not None, "the first call sets it"
        waves = np.sin(seconds[:, None, None] * self._omega + self._phase).sum(axis=1) / WAVES
        return self._middle + REACH * waves
