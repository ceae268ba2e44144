"""The calls of a keyframe policy as they follow each other: MemER's memory and prompts, with scripted answers.

One call per second of raw frames at 15 Hz, on the sampling grid: three of the eight recent frames are new each time.
Every few seconds something happens; the answers name that frame as long as it is among the recent ones, and it is a
keyframe from then on. With eight keyframes the oldest then makes room, so that the images change from the first on.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from memrt.runtime.config import load_policy
from memrt.runtime.keyframes_config import KeyframesConfig
from memrt.runtime.memory.keyframe_memory import KeyframeMemory
from memrt.runtime.memory.keyframes import KeyframeVotes
from memrt.runtime.memory.state import HighLevelRequest
from memrt.runtime.types import ImageArray

TICKS_PER_CALL = 15  # MemER: raw frames at 15 Hz, about one call per second
CALLS_PER_EVENT = 5  # a step of a tabletop task takes some seconds
STEADY = 60  # after a minute there are more events than keyframes are shown
GOAL = "pick up the red cube two times, then press the button to stop"
SUBTASK = "pick up the red cube and place it on the target"


class MemerCalls:
    """An episode of `configs/policies/memer_droid.yaml`: ask with `request`, go on with `answered`."""

    def __init__(self) -> None:
        policy = load_policy("memer_droid")
        assert policy.memory.keyframes is not None
        self.keyframes: KeyframesConfig = policy.memory.keyframes
        self._memory = KeyframeMemory(policy.memory, self.keyframes)
        self._state = self._memory.initial()
        self.call = 0  # number of the next one

    @property
    def tick(self) -> int:
        """The raw tick of the next call."""
        return self.call * TICKS_PER_CALL

    @property
    def recent(self) -> tuple[int, ...]:
        """The raw ticks of the next call's recent frames, oldest first."""
        return self._memory.sampling.settings.recent_ticks(self.tick)

    @property
    def votes(self) -> KeyframeVotes:
        """What the memory holds."""
        return self._state.votes

    def request(self) -> HighLevelRequest:
        """The next question."""
        return self._memory.request(self._state, GOAL, self.recent)

    def answered(self) -> None:
        """Take in the scripted answer: the event's frame, where it is among the recent ones."""
        event = self.tick - self.tick % (CALLS_PER_EVENT * TICKS_PER_CALL)
        recent = self.recent
        positions = [recent.index(event) + 1] if event in recent else []
        reply = json.dumps({"current_subtask": SUBTASK, "keyframe_positions": positions})
        self._state = self._memory.update(self._state, reply, GOAL, recent).state
        self.call += 1

    def keep(self, votes: KeyframeVotes) -> None:
        """What a bounded store of frames has left of the votes."""
        self._state = replace(self._state, votes=votes)

    def skip(self, calls: int) -> None:
        """So many calls of which only the memory takes notice."""
        for _ in range(calls):
            self.answered()


def synthetic_frame(seed: int, height: int = 256, width: int = 256) -> ImageArray:
    """A frame uint8 [height, width, 3] of coarse blocks and fine noise; the sides are multiples of 16."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 200, (height // 16, width // 16, 3))
    coarse = blocks.repeat(16, axis=0).repeat(16, axis=1)
    return (coarse + rng.integers(0, 56, (height, width, 3))).astype(np.uint8)
