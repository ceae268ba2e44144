"""A flow policy that can pass an obstacle on either side: two chunks are right, their mean is not.

Its flow is exact (the posterior mean over the two modes), so what real-time chunking does to it is not a matter of
training. The noise decides the side of a chunk that continues nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from kinematic import DT_NS, ChunkReply

from memrt.runtime.clock import VirtualClock
from memrt.runtime.policy.chunking import Guidance, executed, leftover, soft_mask
from memrt.runtime.types import ActionChunk, Observation, PlayingChunk, Subgoal

HORIZON, EXECUTE, STEPS = 16, 8, 10
SIDE = 0.15  # how far the modes are from the start posture, of joint 1 [rad]
START = -0.5
SPREAD = 0.05  # of the actions that training saw around each mode


@dataclass
class BimodalLowLevel:
    """Chunks whose second joint stays on one side, in every kind of chunking."""

    kind: str = "none"
    calls: str = "chunked"
    delay_ns: int = 0
    clock: VirtualClock | None = None
    beta: float = 5.0

    def noise(self, seed: int, call_index: int) -> np.ndarray:
        rng = np.random.Generator(np.random.Philox(key=[seed, call_index]))
        return rng.standard_normal((HORIZON, 8)).astype(np.float32)

    def act(
        self,
        observation: Observation,
        subgoal: Subgoal,
        goal: str,
        noise: np.ndarray,
        *,
        playing: PlayingChunk | None = None,
    ) -> ChunkReply:
        if self.clock is not None:
            self.clock.advance(self.delay_ns)
        modes = np.tile(observation.proprioception, (2, HORIZON, 1))
        modes[0, :, 1], modes[1, :, 1] = START - SIDE, START + SIDE
        modes = modes.astype(np.float32)
        clean, guidance = np.empty((0, 8), np.float32), None
        if playing is not None:
            old = leftover(playing, observation.t_ns, HORIZON).astype(np.float32)
            if self.kind == "prefix":
                clean = old[: playing.delay_steps]
            elif self.kind == "guided":
                steps = executed(self.calls, EXECUTE, playing.delay_steps)
                guidance = Guidance(old, soft_mask(playing.delay_steps, steps, HORIZON), self.beta)
        x = noise.copy()
        for step in range(STEPS):
            t = 1.0 - step / STEPS
            x[: len(clean)] = clean
            velocity = (x - self._posterior_mean(x, modes, t, len(clean))) / np.float32(t)
            if guidance is not None:
                guidance.pull(velocity, x, t)
            x -= velocity / np.float32(STEPS)
        x[: len(clean)] = clean
        x[:, 7] = 1.0
        return ChunkReply(ActionChunk(x.astype(np.float64), observation.t_ns + DT_NS, DT_NS, subgoal.revision))

    @staticmethod
    def _posterior_mean(x: np.ndarray, modes: np.ndarray, t: float, clean: int) -> np.ndarray:
        """E[a | x_t] for actions N(mode, SPREAD²) with x_t = t·ε + (1 - t)·a; clean rows have t = 0."""
        times = np.full((HORIZON, 1), t)
        times[:clean] = 0.0
        variance = times**2 + ((1 - times) * SPREAD) ** 2
        fits = np.array([-(((x - (1 - times) * mode) ** 2) / variance).sum() / 2 for mode in modes])
        weights = np.exp(fits - fits.max())
        weights /= weights.sum()
        gain = (1 - times) * SPREAD**2 / variance
        means = [mode + gain * (x - (1 - times) * mode) for mode in modes]
        return np.asarray(sum(w * mean for w, mean in zip(weights, means, strict=True)), np.float32)
