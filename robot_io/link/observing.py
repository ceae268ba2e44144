"""Puts together what a policy sees: the cameras' frames, and the arm when they were taken, on the local clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from memrt.robot_io.cameras.alignment import align, state_at
from memrt.robot_io.link.clock_sync import SAME_CLOCK, ClockEstimate
from memrt.robot_io.link.state_feed import StateFeed
from memrt.robot_io.rings import FrameReader
from memrt.runtime.types import FloatArray, Observation


class Observing:
    """Every method may be called from any thread.

    `frames` come from this computer, so their times are its own; the states' are the node's, which `clock` tells.
    `align_to` names the camera whose newest frame is "now"; without it an observation holds every camera's newest.
    """

    def __init__(
        self, frames: FrameReader, feed: StateFeed, clock: Callable[[], ClockEstimate | None], align_to: str | None
    ) -> None:
        self._frames = frames
        self._feed = feed
        self._clock = clock
        self._align_to = align_to

    def observe(self) -> Observation | None:
        """The newest observation; None before the first state. A policy is trained on frames and arm of one time."""
        times_ns, states = self._states()
        if not times_ns:
            return None
        if self._align_to is not None and (aligned := self._aligned(times_ns, states)):
            return aligned
        frames = self._frames.latest()
        t_ns = min((frame.t_ns for frame in frames.values()), default=times_ns[-1])
        history = self._frames if frames else None
        return Observation(t_ns, state_at(times_ns, states, t_ns)[0], frames, history)

    def _aligned(self, times_ns: list[int], states: list[FloatArray]) -> Observation | None:
        """Everything at the newest frame of `align_to`; None before every camera's first frame."""
        assert self._align_to is not None
        with self._frames.recent() as recent:
            aligned = align(self._align_to, recent, times_ns, states)
            if aligned is None:
                return None
            now = aligned.observation
            copies = {name: replace(frame, image=np.array(frame.image)) for name, frame in now.frames.items()}
        return Observation(now.t_ns, now.proprioception, copies, self._frames)

    def _states(self) -> tuple[list[int], list[FloatArray]]:
        clock = self._clock() or SAME_CLOCK
        times_ns, states = self._feed.history()
        return [clock.to_local(t_ns) for t_ns in times_ns], states
