"""What the loop's values become in a recording. All but `seen` and `without_pixels` runs in the recorder's thread."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from memrt.runtime.actions_config import SPACE_NAMES
from memrt.runtime.loop.observer import HighLevelCall, LowLevelCall
from memrt.runtime.loop.stages import AMOUNTS, stage_durations
from memrt.runtime.recording.messages import (
    Chunk,
    Command,
    FrameRef,
    HighLevelAnswer,
    HighLevelRequest,
    Look,
    LowLevelMessage,
    Memory,
    Playing,
    RobotState,
    Seen,
    SubgoalFollowed,
)
from memrt.runtime.types import ActionChunk, Observation, PlayingChunk, RobotMode


def seen(observation: Observation, history: list[Look] | None = None) -> Seen:
    """The observation with its frames by name, and what was looked at in its history."""
    frames = [FrameRef(frame.camera, frame.index, frame.t_ns) for frame in observation.frames.values()]
    return Seen(
        t_ns=observation.t_ns, proprioception=observation.proprioception.tolist(), frames=frames, history=history
    )


def without_pixels(observation: Observation) -> Observation:
    """The observation without its frames, so that a queued call keeps none of them alive."""
    return replace(observation, frames={}, history=None)


def plain(value: Any) -> Any:
    """A memory, or any other value of a policy, as JSON has it: dataclasses become objects, tuples and arrays lists.

    What JSON cannot hold becomes its `repr`: then it can be compared, but not restored.
    """
    return msgspec.json.decode(msgspec.json.encode(value, enc_hook=_plain_array))


def request_of(call: HighLevelCall, observation: Seen) -> HighLevelRequest:
    """The question of a call; its texts are empty where the high level asks no VLM."""
    request = getattr(call.reply, "request", None)
    return HighLevelRequest(
        call=call.index,
        t_ns=call.t_ns,
        goal=call.goal,
        system=getattr(request, "system", ""),
        user=getattr(request, "user", ""),
        observation=observation,
        before=plain(call.before),
        ahead_of_ns=call.ahead_of_ns,
    )


def answer_of(call: HighLevelCall) -> HighLevelAnswer:
    """What became of it."""
    reply, t_ns = call.reply, call.t_ns + call.duration_ns
    if reply is None:
        return HighLevelAnswer(
            call=call.index,
            t_ns=t_ns,
            duration_ns=call.duration_ns,
            cancelled=call.cancelled,
            questions=call.questions,
            missed=call.missed,
        )
    return HighLevelAnswer(
        call=call.index,
        t_ns=t_ns,
        duration_ns=call.duration_ns,
        questions=call.questions,
        reply=getattr(reply, "reply", ""),
        subgoal=reply.subgoal,
        held=reply.held,
        answered_by=getattr(reply, "answered_by", ""),
        missed=call.missed,
        stages=dict(stage_durations(reply)),
        amounts={name: int(value) for name in AMOUNTS if (value := getattr(reply, name, None)) is not None},
    )


def memory_of(call: HighLevelCall, state: Any) -> Memory:
    """What is remembered after it."""
    return Memory(call=call.index, t_ns=call.t_ns + call.duration_ns, state=plain(state))


def chunk_of(chunk: ActionChunk) -> Chunk:
    """The chunk, every float64 exactly."""
    return Chunk(
        t0_ns=chunk.t0_ns,
        dt_ns=chunk.dt_ns,
        subgoal_revision=chunk.subgoal_revision,
        actions=np.asarray(chunk.actions, np.float64).tolist(),
        space=SPACE_NAMES[chunk.space],
    )


def low_level_of(call: LowLevelCall, observation: Seen) -> LowLevelMessage:
    """One chunk and what it was computed from."""
    subgoal = call.subgoal
    return LowLevelMessage(
        call=call.index,
        seed=call.seed,
        t_ns=call.t_ns,
        duration_ns=call.duration_ns,
        goal=call.goal,
        subgoal=SubgoalFollowed(subgoal.text, subgoal.revision, subgoal.t_obs_ns),
        observation=observation,
        playing=None if call.playing is None else _playing_of(call.playing),
        chunk=chunk_of(call.reply.chunk),
        stages=dict(stage_durations(call.reply)),
    )


def command_of(call: int, t_ns: int, chunk: ActionChunk) -> Command:
    """What was sent."""
    return Command(call=call, t_ns=t_ns, chunk=chunk_of(chunk))


def state_of(mode: RobotMode, observation: Seen, t_ns: int) -> RobotState:
    """Where the robot is."""
    return RobotState(t_ns=t_ns, t_obs_ns=observation.t_ns, mode=mode.value, proprioception=observation.proprioception)


def _playing_of(playing: PlayingChunk) -> Playing:
    return Playing(
        times_ns=playing.times_ns.tolist(),
        actions=playing.actions.tolist(),
        dt_ns=playing.dt_ns,
        delay_steps=playing.delay_steps,
    )


def _plain_array(value: object) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else repr(value)
