"""Frames over time in lock-step: which control steps a later high-level call will ask for, and their frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memrt.runtime.loop.protocols import LooksBack
from memrt.runtime.types import Frame, ImageArray, Observation


@dataclass(frozen=True, slots=True)
class LentFrame:
    """A `BorrowedFrame` whose pixels stay anyway."""

    image: ImageArray
    index: int
    t_ns: int

    def release(self) -> None:
        """Nothing to let go."""


class StepFrames:
    """Implements `FrameHistory` for a simulator whose time stands still: a frame exists only if it is asked for.

    Bounded by the time that a call looks back over: at most one frame per camera and control step of it.
    """

    def __init__(self, high_level: LooksBack, dt_ns: int, every_steps: int) -> None:
        """Calls are `every_steps` control steps of `dt_ns` apart, or as much later as the high level wants."""
        self._high_level, self._dt_ns, self._every_ns = high_level, dt_ns, every_steps * dt_ns
        self._kept: deque[Mapping[str, Frame]] = deque()

    def next_call_ns(self, state: Any, t_ns: int) -> int:
        """When the call after one at `t_ns` is made: at the first control step that is late enough."""
        wanted_ns = self._high_level.next_call_ns(state, t_ns + self._every_ns)
        return t_ns - (t_ns - wanted_ns) // self._dt_ns * self._dt_ns

    def wants(self, state: Any, t_ns: int, call_ns: int) -> bool:
        """Whether a call at `call_ns`, which is the next, or a later one looks at the control step of `t_ns`."""
        while looks_at := self._high_level.looks_at_ns(state, call_ns):
            if any(t_ns <= wanted < t_ns + self._dt_ns for wanted in looks_at):
                return True
            if looks_at[0] >= t_ns + self._dt_ns:  # later calls look at later times
                return False
            call_ns = self.next_call_ns(state, call_ns)
        return False

    def add(self, observation: Observation, state: Any, call_ns: int) -> None:
        """Keep the observation's frames, and drop those that the next call, at `call_ns`, no longer looks at."""
        self._kept.append(observation.frames)
        oldest_ns = min(self._high_level.looks_at_ns(state, call_ns), default=call_ns)
        while len(self._kept) > 1 and all(frame.t_ns <= oldest_ns for frame in self._kept[1].values()):
            self._kept.popleft()

    def at(self, camera: str, t_ns: int) -> LentFrame | None:
        """The newest frame kept that is not younger than `t_ns`."""
        for frames in reversed(self._kept):
            frame = frames.get(camera)
            if frame is not None and frame.t_ns <= t_ns:
                return LentFrame(frame.image, frame.index, frame.t_ns)
        return None
