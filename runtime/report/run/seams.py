"""The jump from chunk to chunk, out of the commands that a run recorded."""

from __future__ import annotations

import numpy as np

from memrt.runtime.loop.following import Followed
from memrt.runtime.loop.record import SEAM_UNITS
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.recording.messages import Command
from memrt.runtime.types import ActionChunk, ActionSpace


class Seams:
    """Takes the commands of a run as they were sent; keeps two horizons of them. `found` is by low-level call."""

    def __init__(self) -> None:
        self.found: dict[int, float] = {}
        self.unit = SEAM_UNITS[ActionSpace.JOINT_POSITION]
        self._followed: Followed | None = None

    def take(self, command: Command) -> None:
        """One chunk, measured as the run's own record does (`Followed.take`)."""
        sent, space = command.chunk, ActionSpace[command.chunk.space.upper()]
        actions = np.array(sent.actions, np.float64)
        if self._followed is None:
            # The first chunk of a real-time run has lost the actions that were late, so any may be the longest.
            horizon = 2 * len(actions)
            settings = LoopSettings(dt_ns=sent.dt_ns, horizon=horizon, execute=horizon, every_steps=1)
            self._followed, self.unit = Followed(settings), SEAM_UNITS[space]
        seam = self._followed.take(ActionChunk(actions, sent.t0_ns, sent.dt_ns, sent.subgoal_revision, space))
        if seam is not None:
            self.found[command.call] = round(seam, 5)

    def clear(self) -> None:
        """What a hold lies between is no seam."""
        if self._followed is not None:
            self._followed.clear()
