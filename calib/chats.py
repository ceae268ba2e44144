"""What a policy is asked, and what it should answer, in a recorded high-level sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from memrt.calib.calibration_set import CalibrationSet, HighLevelSample, Remembered, Role
from memrt.runtime.config import MemoryConfig, PolicyConfig
from memrt.runtime.keyframes_config import KeyframesConfig
from memrt.runtime.memory import MemoryState, build_memory
from memrt.runtime.memory.keyframe_reply import KeyframeReply, format_keyframe_reply
from memrt.runtime.memory.keyframes import Cluster, KeyframeVotes
from memrt.runtime.memory.parser import Reply, format_reply
from memrt.runtime.policy.views import stack_views


@dataclass(frozen=True, slots=True, eq=False)
class Chat:
    """One supervised call: images uint8 [height, width, 3] in order, prompts, and the recorded reply."""

    images: tuple[NDArray[np.uint8], ...]
    system: str
    user: str
    reply: str


def chats(calibration: CalibrationSet, policy: PolicyConfig, role: Role) -> list[Chat]:
    """Every high-level sample of `role` in the words of `policy`."""
    memory, samples = policy.memory, calibration.high_level(role)
    if memory.keyframes is not None:
        return _keyframe_chats(calibration, policy, memory.keyframes, samples)
    return [Chat((calibration.images[sample.image],), *_texts(sample, memory)) for sample in samples]


def state_of(remembered: Remembered, memory: MemoryConfig) -> MemoryState:
    """The memory state a policy is in just before the recorded call."""
    initial = build_memory(memory).initial()
    if memory.kind == "memoryless":
        return initial
    history = remembered.history
    return MemoryState(
        history=history,
        action_memory=remembered.memory_before if memory.kind == "language" else "",
        spatial_memory=(remembered.spatial_before if memory.spatial else "") or initial.spatial_memory,
        subgoal=history[-1] if history else "",
    )


def reply_of(remembered: Remembered, memory: MemoryConfig) -> str:
    """The answer in the policy's format (compressed-memory report, appendix A.2.3)."""
    if memory.kind != "language":
        return remembered.subgoal
    spatial = (remembered.spatial_after or memory.initial_spatial_memory) if memory.spatial else None
    return format_reply(Reply(remembered.subgoal, remembered.memory_after, spatial))


def _texts(sample: HighLevelSample, memory: MemoryConfig) -> tuple[str, str, str]:
    remembered = sample.grounded if memory.subgoal_style == "grounded" else sample.simple
    request = build_memory(memory).request(state_of(remembered, memory), sample.goal)
    return request.system, request.user, reply_of(remembered, memory)


def _keyframe_chats(
    calibration: CalibrationSet, policy: PolicyConfig, keyframes: KeyframesConfig, samples: Sequence[HighLevelSample]
) -> list[Chat]:
    """A set records one picture per call, so it stands for every view, and an episode's calls stand for its frames.

    The newest of them are the recent frames, those before them the keyframes. The shape of a request and the size of
    its numbers are a real one's, which is what ranges and gates are about; its story is not.
    """
    memory, found = build_memory(policy.memory), []
    for sample in samples:
        before = [s for s in samples if (s.episode, s.goal) == (sample.episode, sample.goal) and s.step <= sample.step]
        before.sort(key=lambda s: s.step)
        ticks = tuple(range(len(before)))
        recent, older = ticks[-keyframes.recent :], ticks[: -keyframes.recent]
        votes = KeyframeVotes(tuple(Cluster((tick,), (1,)) for tick in older))
        request = memory.request(replace(memory.initial(), votes=votes), sample.goal, recent)
        pictures = [calibration.images[before[tick].image] for tick in (*request.keyframes, *request.recent)]
        images = [stack_views([image] * len(keyframes.views), policy.high_level.frame_size) for image in pictures]
        remembered = sample.grounded if policy.memory.subgoal_style == "grounded" else sample.simple
        reply = format_keyframe_reply(KeyframeReply(remembered.subgoal, (len(recent),)))
        found.append(Chat(tuple(images), request.system, request.user, reply))
    return found
