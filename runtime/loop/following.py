"""What the robot has been told so far: the targets that the next chunk continues, and the jump where one took over."""

from __future__ import annotations

import numpy as np

from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.policy.chunking import sample
from memrt.runtime.types import ARM_JOINTS, ActionChunk, ActionSpace, PlayingChunk


class Followed:
    """The targets of all chunks sent, each replacing the older ones from its first action on, as the robot's seam does.

    At most two horizons of them are kept: an observation is never older than the chunk before the newest.
    """

    def __init__(self, settings: LoopSettings) -> None:
        self._settings = settings
        self.clear()

    def clear(self) -> None:
        """The robot follows nothing any more: a hold lies between."""
        self._times_ns = np.empty(0, np.int64)
        self._actions = np.empty((0, 0))

    def take(self, chunk: ActionChunk) -> float | None:
        """Note a chunk that was sent. Returns the seam: how far its first action is from what the robot had been told
        for the same time, the largest joint's distance [rad] (of velocities [rad/s], of poses the largest coordinate's
        [m]); None when nothing was left to be continued.
        """
        times_ns = chunk.t0_ns + np.arange(len(chunk.actions), dtype=np.int64) * chunk.dt_ns
        if not len(self._times_ns):
            self._times_ns, self._actions = times_ns, chunk.actions
            return None
        seam = None
        if self._times_ns[0] <= chunk.t0_ns <= self._times_ns[-1]:
            old = sample(self._times_ns, self._actions, times_ns[:1])[0]
            compared = 3 if chunk.space is ActionSpace.CARTESIAN_POSE else ARM_JOINTS
            seam = float(np.abs(chunk.actions[0] - old)[:compared].max())
        end = int(np.searchsorted(self._times_ns, chunk.t0_ns))
        older = slice(max(0, end - self._settings.horizon), end)
        self._times_ns = np.concatenate((self._times_ns[older], times_ns))
        self._actions = np.concatenate((self._actions[older], chunk.actions))
        return seam

    def playing(self, t_obs_ns: int, delay_steps: int, *, outdated: bool = False) -> PlayingChunk | None:
        """What a chunk computed from an observation at `t_obs_ns` continues; None where nothing is left.

        `outdated`: it follows an older subgoal, whose plan is to be dropped (`on_new_subgoal: discard`): only what will
        be executed before the new chunk arrives is continued.
        """
        dt_ns = self._settings.paced_dt_ns
        times_ns, actions = self._times_ns, self._actions
        end_ns = t_obs_ns + delay_steps * dt_ns
        if not len(times_ns) or times_ns[-1] <= t_obs_ns or (outdated and delay_steps == 0):
            return None
        first = max(0, int(np.searchsorted(times_ns, t_obs_ns, side="right")) - 1)
        times_ns, actions = times_ns[first:], actions[first:]
        if outdated and times_ns[-1] > end_ns:
            last_ns = np.array([end_ns], np.int64)
            last = sample(times_ns, actions, last_ns)
            kept = int(np.searchsorted(times_ns, end_ns))
            times_ns, actions = np.append(times_ns[:kept], last_ns), np.concatenate((actions[:kept], last))
        return PlayingChunk(times_ns, actions, dt_ns, delay_steps)
