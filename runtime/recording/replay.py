"""Computes a recorded run's decisions again, in their order, and finds the first that comes out differently.

Each policy is given exactly what it was given then: goal, frames, proprioception, memory, the named noise. The high
level's session starts empty, as it did at the start of the run, and repeats all calls, because reused K/V rows make the
last bits of a call depend on the calls before it. Memory is carried from call to call; where a call is missing or came
out differently, the recorded memory is taken up again, so that every decision is judged by itself. What a VLM that is
served elsewhere said is taken over: the question before it and the memory after it are computed again.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import numpy as np

from memrt.runtime.loop.protocols import HighLevel, HighLevelReply, LowLevel, ReadsAhead
from memrt.runtime.policy.cancellation import Cancelled
from memrt.runtime.recording.encoding import chunk_of, plain
from memrt.runtime.recording.history import RecordedHistory
from memrt.runtime.recording.messages import (
    FrameRef,
    HighLevelAnswer,
    HighLevelRequest,
    LowLevelMessage,
    Memory,
    Playing,
    RawImage,
    Seen,
)
from memrt.runtime.recording.reader import Recording, Summary, is_frame
from memrt.runtime.recording.recorded_vlm import RecordedVlm
from memrt.runtime.types import Frame, Observation, PlayingChunk, Subgoal

Stage = Literal["high level", "low level"]
FrameKey = tuple[str, int]  # camera, index


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that came out differently."""

    stage: Stage
    call: int
    t_ns: int
    field: str
    recorded: Any
    found: Any


@dataclass(slots=True)
class StageCounts:
    """Decisions of one stage; `skipped` are those that could not be computed again, by reason."""

    rerun: int = 0
    different: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def equal(self) -> int:
        """Those that came out as recorded."""
        return self.rerun - self.different


@dataclass(slots=True)
class Verdict:
    """What a replay found. `cut_off` says why the recording ends early, "" when it does not.

    `taken_over` are the high level's decisions in which a remote VLM's words were recorded ones.
    """

    stages: dict[Stage, StageCounts] = field(
        default_factory=lambda: {"high level": StageCounts(), "low level": StageCounts()}
    )
    first: Difference | None = None
    taken_over: int = 0
    cut_off: str = ""
    largest_action_difference: float = 0.0  # joint targets [rad] and gripper opening alike

    @property
    def decisions(self) -> int:
        """How many were looked at."""
        return sum(counts.rerun + counts.skipped.total() for counts in self.stages.values())

    @property
    def equal(self) -> bool:
        """Whether every decision that was computed again came out as recorded."""
        return self.first is None

    def judge(self, stage: Stage, call: int, t_ns: int, pairs: Iterable[tuple[str, Any, Any]]) -> None:
        """Count one decision by its values (field, recorded, found)."""
        counts = self.stages[stage]
        counts.rerun += 1
        unequal = [pair for pair in pairs if pair[1] != pair[2]]
        if unequal:
            counts.different += 1
            self.first = self.first or Difference(stage, call, t_ns, *unequal[0])


def replay(
    recording: Recording,
    high_level: HighLevel | None,
    low_level: LowLevel,
    *,
    served: RecordedVlm | None = None,
    until: int | None = None,
) -> Verdict:
    """Compute the first `until` decisions again, by default all, and compare them with what was recorded.

    Without a high level its calls are skipped and counted: an oracle's answers come from a simulator's state.
    `served` is the VLM of the high level, where the run's was served elsewhere. Raises what a policy raises, and
    MemrtError for messages of another version.
    """
    run, summary = _Replay(recording, high_level, low_level, served), Summary(recording.run)
    for recorded in recording.messages(lambda topic: is_frame(topic) or topic in _DECISIONS, summary):
        if until is not None and run.verdict.decisions >= until:
            break
        run.take(recorded.message)
    run.verdict.cut_off = summary.cut_off
    return run.verdict


_DECISIONS = {"/high_level/request", "/high_level/answer", "/memory", "/low_level"}


class _Replay:
    def __init__(
        self, recording: Recording, high_level: HighLevel | None, low_level: LowLevel, served: RecordedVlm | None
    ) -> None:
        self._high_level, self._low_level, self._served = high_level, low_level, served
        self._state = high_level.initial() if high_level is not None else None
        self._state_type: type = type(self._state)
        self._frames: dict[FrameKey, Frame] = {}
        self._uses = _frame_uses(recording)
        self._request: HighLevelRequest | None = None
        self._answer: HighLevelAnswer | None = None
        self.verdict = Verdict()

    def take(self, message: msgspec.Struct) -> None:
        """Read on; the last message of a decision makes it happen."""
        if isinstance(message, RawImage):
            frame = message.frame()
            if self._uses[key := (frame.camera, frame.index)]:
                self._frames[key] = frame
        elif isinstance(message, HighLevelRequest):
            self._request = message
        elif isinstance(message, HighLevelAnswer):
            self._answer = message
            if self._request is not None and self._request.ahead_of_ns is not None:
                self._read_ahead_again(self._request, self._request.ahead_of_ns, message)
            elif message.cancelled:
                self._repeat_cancelled(message)
            elif message.missed and not message.answered_by:
                self._skip("high level", "nobody answered")
        elif isinstance(message, Memory):
            self._repeat_high_level(message)
        elif isinstance(message, LowLevelMessage):
            self._repeat_low_level(message)

    def _repeat_cancelled(self, answer: HighLevelAnswer) -> None:
        """A cancelled call has no outcome to compare, but the K/V rows it left are those that the next one finds."""
        with suppress(Cancelled):
            self._ask(answer)
        self._skip("high level", "cancelled")

    def _read_ahead_again(self, request: HighLevelRequest, moment_ns: int, answer: HighLevelAnswer) -> None:
        """No decision, but the call that it was for finds its K/V rows."""
        observation = self._observation(request.observation)
        if observation is None or not isinstance(self._high_level, ReadsAhead):
            return
        self._take_up(request)
        self._expect(answer)
        with suppress(Cancelled):
            cancelled = _cancelled_again(answer)
            self._high_level.read_ahead(request.goal, observation, self._state, moment_ns, cancelled=cancelled)

    def _repeat_high_level(self, memory: Memory) -> None:
        request, answer = self._request, self._answer
        assert request is not None, "a recorder writes request, answer and memory of a call in one go"
        assert answer is not None
        reply = self._ask(answer)
        if reply is None:
            self._skip(
                "high level", "the high level is an oracle" if self._high_level is None else "a frame was dropped"
            )
            return
        self.verdict.taken_over += answer.answered_by == "remote"
        asked = getattr(reply, "request", None)
        self._state = reply.state
        self.verdict.judge(
            "high level",
            request.call,
            request.t_ns,
            [
                ("system prompt", request.system, getattr(asked, "system", "")),
                ("user prompt", request.user, getattr(asked, "user", "")),
                ("reply", answer.reply, getattr(reply, "reply", "")),
                ("subgoal", answer.subgoal, reply.subgoal),
                ("held", answer.held, reply.held),
                ("memory", memory.state, plain(reply.state)),
            ],
        )

    def _ask(self, answer: HighLevelAnswer) -> HighLevelReply | None:
        """Repeat the last request, None where that cannot be done. Raises Cancelled where it was cancelled then."""
        request = self._request
        assert request is not None, "a recorder writes request and answer of a call in one go"
        observation = self._observation(request.observation)
        if self._high_level is None or observation is None:
            return None
        self._take_up(request)
        self._expect(answer)
        return self._high_level.call(request.goal, observation, self._state, cancelled=_cancelled_again(answer))

    def _expect(self, answer: HighLevelAnswer) -> None:
        if self._served is not None:
            self._served.expect(answer)

    def _take_up(self, request: HighLevelRequest) -> None:
        """Go on with the memory that was recorded, where it is not the one that came out here."""
        if plain(self._state) != request.before:
            self._state = self._restored(request.before)

    def _repeat_low_level(self, call: LowLevelMessage) -> None:
        observation = self._observation(call.observation)
        if observation is None:
            self._skip("low level", "a frame was dropped")
            return
        subgoal = Subgoal(call.subgoal.text, call.subgoal.revision, call.subgoal.t_obs_ns)
        noise = self._low_level.noise(call.seed, call.call)
        playing = None if call.playing is None else _playing(call.playing)
        found = chunk_of(self._low_level.act(observation, subgoal, call.goal, noise, playing=playing).chunk)
        recorded = msgspec.structs.replace(call.chunk, actions=_finite(call.chunk.actions))
        found = msgspec.structs.replace(found, actions=_finite(found.actions))
        self.verdict.judge(
            "low level",
            call.call,
            call.t_ns,
            [(name, getattr(recorded, name), getattr(found, name)) for name in recorded.__struct_fields__],
        )
        before, after = (np.array(chunk.actions, np.float64) for chunk in (recorded, found))
        if before.shape == after.shape and np.isfinite(gap := np.abs(before - after)).any():
            verdict = self.verdict
            verdict.largest_action_difference = max(verdict.largest_action_difference, float(np.nanmax(gap)))

    def _observation(self, seen: Seen) -> Observation | None:
        """What the policy saw, None where a frame of it was not recorded. Frames of no later use are let go."""
        found = [self._frame(ref) for ref in _refs(seen)]
        frames = [frame for frame in found if frame is not None]
        if len(frames) < len(found):
            return None
        newest = {frame.camera: frame for frame in frames[: len(seen.frames)]}
        looks = [look for look in seen.history or () if look.frame is not None]
        past = {(look.camera, look.t_ns): frame for look, frame in zip(looks, frames[len(newest) :], strict=True)}
        history = None if seen.history is None else RecordedHistory(past)
        return Observation(seen.t_ns, np.array(seen.proprioception, np.float64), newest, history)

    def _frame(self, ref: FrameRef) -> Frame | None:
        key = (ref.camera, ref.index)
        self._uses[key] -= 1
        return self._frames.get(key) if self._uses[key] else self._frames.pop(key, None)

    def _restored(self, before: Any) -> Any:
        try:
            return msgspec.convert(before, self._state_type)
        except msgspec.ValidationError:  # a memory that JSON does not hold: carry on with our own
            return self._state

    def _skip(self, stage: Stage, reason: str) -> None:
        self.verdict.stages[stage].skipped[reason] += 1


def _cancelled_again(answer: HighLevelAnswer) -> Callable[[], bool]:
    """Ends a call where it ended then."""
    questions = itertools.count(1)
    return lambda: answer.cancelled and next(questions) >= answer.questions


def _refs(seen: Seen) -> list[FrameRef]:
    """All frames of an observation: the newest ones, then the past ones that were asked for."""
    return seen.frames + [look.frame for look in seen.history or () if look.frame is not None]


def _frame_uses(recording: Recording) -> Counter[FrameKey]:
    """How often each frame is asked for, so that it is kept from its arrival to its last use and no longer."""
    uses: Counter[FrameKey] = Counter()
    for recorded in recording.messages(lambda topic: topic in ("/high_level/request", "/low_level")):
        message = recorded.message
        if isinstance(message, HighLevelRequest | LowLevelMessage):
            uses.update((ref.camera, ref.index) for ref in _refs(message.observation))
    return uses


def _playing(playing: Playing) -> PlayingChunk:
    times_ns, actions = np.array(playing.times_ns, np.int64), np.array(playing.actions, np.float64)
    return PlayingChunk(times_ns, actions, playing.dt_ns, playing.delay_steps)


def _finite(actions: list[list[float | None]]) -> list[list[float | None]]:
    """Not finite is None on both sides: JSON has no word for NaN and infinity."""
    return [[value if value is not None and np.isfinite(value) else None for value in row] for row in actions]
