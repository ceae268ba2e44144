"""What a policy is asked, and what it should answer, in a recorded high-level sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memrt.calib.calibration_set import CalibrationSet, HighLevelSample, Remembered, Role
from memrt.runtime.config import MemoryConfig
from memrt.runtime.memory import MemoryState, build_memory
from memrt.runtime.memory.parser import Reply, format_reply


@dataclass(frozen=True, slots=True, eq=False)
class Chat:
    """One supervised call: image uint8 [height, width, 3], prompts, and the recorded reply."""

    image: NDArray[np.uint8]
    system: str
    user: str
    reply: str


def chats(calibration: CalibrationSet, memory: MemoryConfig, role: Role) -> list[Chat]:
    """Every high-level sample of `role` in the words of the policy that has `memory`."""
    return [Chat(calibration.images[sample.image], *_texts(sample, memory)) for sample in calibration.high_level(role)]


def state_of(remembered: Remembered, memory: MemoryConfig) -> MemoryState:
    """The memory state a policy is in just before the recorded call."""
    initial = build_memory(memory).initial()
    if memory.kind == "memoryless":
        return initial
    history = remembered.history
    return MemoryState(
        history=history,
        action_memory=remembered.memory_before if memory.kind == "language" else "",
        spatial_memory=initial.spatial_memory,
        subgoal=history[-1] if history else "",
    )


def reply_of(remembered: Remembered, memory: MemoryConfig) -> str:
    """The answer in the policy's format (compressed-memory report, appendix A.2.3)."""
    if memory.kind != "language":
        return remembered.subgoal
    return format_reply(Reply(remembered.subgoal, remembered.memory_after))


def _texts(sample: HighLevelSample, memory: MemoryConfig) -> tuple[str, str, str]:
    remembered = sample.grounded if memory.subgoal_style == "grounded" else sample.simple
    request = build_memory(memory).request(state_of(remembered, memory), sample.goal)
    return request.system, request.user, reply_of(remembered, memory)
