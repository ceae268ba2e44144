"""Real-time chunking (SPECS 3): how a new action chunk continues the one that the robot is executing meanwhile.

Pure numpy. H is the horizon, s the actions executed per chunk, d the delay: actions of the new chunk that are past when
it arrives. Two ways, both without a backward pass:

- prefix: the first d actions of the new chunk are the old chunk's, clean (weights trained for it, engine `step_rtc`);
- guided: every denoise step pulls its estimate of the finished chunk towards the old chunk, fully for the first d
  actions, then fading (Black, Galliker and Levine, "Real-Time Execution of Action Chunking Flow Policies", 2025, with
  the identity for the network's Jacobian). Any flow-matching weights will do.

What is continued (`leftover`) is what the robot was told for the times of the new actions. The two chunks share no
grid: observations are taken when the runtime needs one, not when an action is due.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from memrt.runtime.types import FloatArray, PlayingChunk

Float32Array = NDArray[np.float32]


def executed(calls: Literal["chunked", "every_tick"], execute: int, delay: int) -> int:
    """s: how many actions of a chunk are executed before the next takes over. `execute`: the policy's setting."""
    return execute if calls == "chunked" else max(1, delay)


def feasible(delay: int, execute: int, horizon: int) -> bool:
    """Whether chunks can follow each other without starving the robot: d <= s <= H - d."""
    return delay <= execute <= horizon - delay


def soft_mask(delay: int, execute: int, horizon: int) -> Float32Array:
    """W, float32 [horizon]: 1 while i < d, then c (e^c - 1) / (e - 1) with c falling to 0 at H - s, 0 from there on.

    An infeasible d > H - s is taken as H - s: a chunk has no older actions to continue than those.
    """
    end = max(0, horizon - execute)
    delay = min(delay, end)
    c = np.clip((end - np.arange(horizon)) / (end - delay + 1), 0.0, 1.0)
    weights: FloatArray = np.where(np.arange(horizon) < delay, 1.0, c * np.expm1(c) / (math.e - 1.0))
    return weights.astype(np.float32)


def guidance_gain(t: float, beta: float) -> float:
    """gw at flow time t (1 noise, 0 clean): min(beta, (t² + (1 - t)²) / (t (1 - t))); beta at both ends."""
    remaining = t * (1.0 - t)
    numerator = t * t + (1.0 - t) * (1.0 - t)
    return beta if remaining * beta <= numerator else numerator / remaining


class Guidance:
    """The pull of one call: v -= gw · W · (Y - x̂), where x̂ = x - t·v is the chunk that v alone would lead to.

    Only actions that have a target are pulled, and only the dimensions it has: those after the old chunk's end and the
    model's padding stay free. `pull` works in place and allocates no array.
    """

    def __init__(self, target: Float32Array, weights: Float32Array, beta: float) -> None:
        """`target` float32 [m, k]: the normalised leftover, m <= H; `weights`: W float32 [H]."""
        self._target = np.ascontiguousarray(target, np.float32)
        self._weights = np.ascontiguousarray(weights[: len(target), None])
        self._pull = np.empty_like(self._target)
        self._beta = beta

    def pull(self, velocity: Float32Array, x: Float32Array, t: float) -> None:
        """Change `velocity` float32 [H, dim] in place; `x` float32 [H, dim] is the noisy chunk at flow time `t`."""
        rows, columns = self._target.shape
        own, pull = velocity[:rows, :columns], self._pull
        np.multiply(own, np.float32(t), out=pull)
        np.subtract(pull, x[:rows, :columns], out=pull)  # -x̂
        np.add(pull, self._target, out=pull)
        np.multiply(pull, self._weights, out=pull)
        np.multiply(pull, np.float32(guidance_gain(t, self._beta)), out=pull)
        np.subtract(own, pull, out=own)


def leftover(playing: PlayingChunk, t_obs_ns: int, horizon: int) -> FloatArray:
    """What the robot was told for the times of a new chunk's actions, float64 [m, 8], absolute; m <= horizon.

    Row i is for `t_obs_ns + (i + 1) * playing.dt_ns`, linear between the targets around it (the first one's before it).
    What lies beyond the last target has no row.
    """
    times_ns = t_obs_ns + (np.arange(horizon, dtype=np.int64) + 1) * playing.dt_ns
    times_ns = times_ns[times_ns <= playing.times_ns[-1]]
    return sample(playing.times_ns, playing.actions, times_ns)


def sample(known_ns: NDArray[np.int64], values: NDArray[Any], times_ns: NDArray[np.int64]) -> FloatArray:
    """`values` [n, k], known at the ascending `known_ns` [n], at `times_ns` [m]: float64 [m, k], linear in between.

    Outside of `known_ns` the nearest row. Times are compared relative to the first one: a float64 does not hold every
    nanosecond of a long uptime.
    """
    origin = known_ns[0]
    known, wanted = (known_ns - origin).astype(np.float64), (times_ns - origin).astype(np.float64)
    columns = [np.interp(wanted, known, values[:, k]) for k in range(values.shape[1])]
    return np.stack(columns, axis=1)
