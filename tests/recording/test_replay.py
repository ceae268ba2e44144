"""Replay: equal where nothing has changed, else the first difference by name; what is missing is said."""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
from kinematic import KinematicRobot, Memory, Reply, SwingHighLevel, SwingLowLevel
from recorded_runs import record_lockstep

from memrt.runtime.clock import VirtualClock
from memrt.runtime.loop.high_level_calls import HighLevelCalls
from memrt.runtime.loop.record import RunRecord
from memrt.runtime.policy.cancellation import Cancelled
from memrt.runtime.recording import recorder as recorder_module
from memrt.runtime.recording.reader import Recording
from memrt.runtime.recording.recorder import McapRecorder
from memrt.runtime.recording.replay import Verdict, replay


@pytest.fixture
def recording(tmp_path):
    record_lockstep(tmp_path / "run.mcap")
    return Recording(tmp_path / "run.mcap")


def counts(verdict: Verdict) -> dict[str, tuple[int, int, int]]:
    """Computed again, equal, skipped."""
    return {stage: (found.rerun, found.equal, found.skipped.total()) for stage, found in verdict.stages.items()}


def test_the_same_policies_decide_the_same(recording):
    verdict = replay(recording, SwingHighLevel(), SwingLowLevel())
    assert verdict.equal
    assert counts(verdict) == {"high level": (3, 3, 0), "low level": (5, 5, 0)}
    assert verdict.largest_action_difference == 0.0


class OffByABit(SwingLowLevel):
    """One value of call 2 differs in its last bit."""

    def act(self, observation, subgoal, goal, noise, *, playing=None):
        reply = super().act(observation, subgoal, goal, noise)
        if len(self.subgoals) == 3:
            reply.chunk.actions[5, 1] = np.nextafter(reply.chunk.actions[5, 1], 9.0)
        return reply


def test_one_bit_is_found(recording):
    verdict = replay(recording, SwingHighLevel(), OffByABit())
    assert not verdict.equal
    assert (verdict.first.stage, verdict.first.call, verdict.first.field) == ("low level", 2, "actions")
    assert counts(verdict) == {"high level": (3, 3, 0), "low level": (5, 4, 0)}
    assert 0 < verdict.largest_action_difference < 1e-15


@dataclass
class Forgetful(SwingHighLevel):
    """Counts one swing too many at its second call."""

    def call(self, goal, observation, state, *, cancelled=None):
        reply = super().call(goal, observation, state)
        return Reply(replace(reply.state, swings=7), reply.subgoal) if self.calls == 2 else reply


def test_a_memory_that_differs_is_taken_up_again_as_recorded(recording):
    verdict = replay(recording, Forgetful(), SwingLowLevel())
    first = verdict.first
    assert (first.stage, first.call, first.field) == ("high level", 1, "memory")
    assert first.found["swings"] == 7
    assert counts(verdict) == {"high level": (3, 2, 0), "low level": (5, 5, 0)}


def test_until_stops_early(recording):
    assert replay(recording, SwingHighLevel(), SwingLowLevel(), until=4).decisions == 4


def test_chunks_that_are_not_finite_are_equal_to_themselves(tmp_path):
    record = record_lockstep(tmp_path / "run.mcap", SwingLowLevel(spoil=np.nan))
    assert record.status == "held"
    assert replay(Recording(tmp_path / "run.mcap"), SwingHighLevel(), SwingLowLevel(spoil=np.inf)).equal
    assert not replay(Recording(tmp_path / "run.mcap"), SwingHighLevel(), SwingLowLevel()).equal


def test_a_call_whose_frame_was_dropped_is_skipped_and_the_memory_taken_up_again(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_module, "USED_FRAME_SHARE", 0.0)
    record_lockstep(tmp_path / "run.mcap", frames="used")
    verdict = replay(Recording(tmp_path / "run.mcap"), SwingHighLevel(), SwingLowLevel())
    assert counts(verdict) == {"high level": (0, 0, 3), "low level": (0, 0, 5)}
    assert set(verdict.stages["high level"].skipped) == {"a frame was dropped"}


@dataclass
class LooksAtTheLastFrames(SwingHighLevel):
    """Remembers the brightness of what it saw 100 and 300 ms ago."""

    def next_call_ns(self, state, t_ns):
        return t_ns

    def looks_at_ns(self, state, t_ns):
        return t_ns - 300_000_000, t_ns - 100_000_000

    def call(self, goal, observation, state, *, cancelled=None):
        reply = super().call(goal, observation, state)
        past = [observation.history.at("front", t_ns) for t_ns in self.looks_at_ns(state, observation.t_ns)]
        brightness = sum(int(frame.image.sum()) for frame in past if frame is not None)
        for frame in past:
            if frame is not None:
                frame.release()
        return Reply(replace(reply.state, swings=brightness), reply.subgoal)


@pytest.mark.parametrize("frames", ["all", "used"])
def test_past_frames_that_a_policy_asked_for_are_recorded_and_given_again(tmp_path, frames):
    record_lockstep(tmp_path / "run.mcap", high_level=LooksAtTheLastFrames(), frames=frames)
    recording = Recording(tmp_path / "run.mcap")
    looked = [
        look
        for recorded in recording.messages(lambda topic: topic == "/high_level/request")
        for look in recorded.message.observation.history
    ]
    assert [look.frame is None for look in looked] == [True, True, False, False, False, False]
    verdict = replay(recording, LooksAtTheLastFrames(), SwingLowLevel())
    assert verdict.equal, verdict.first
    assert counts(verdict)["high level"] == (3, 3, 0)


@dataclass
class KeepsRows(SwingHighLevel):
    """Every engine run leaves a row behind, and the answer depends on all of them, as the last bits of a VLM's do."""

    rows: int = 0

    def call(self, goal, observation, state, *, cancelled=None):
        for _ in range(5):
            if cancelled is not None and cancelled():
                raise Cancelled
            self.rows += 1
        return Reply(state, f"after {self.rows} rows")


def test_cancelled_calls_are_repeated_as_far_as_they_had_come(tmp_path):
    cancel_at = [None, 3, None, 1, None]
    robot = KinematicRobot(VirtualClock())
    with McapRecorder(tmp_path / "run.mcap", {}) as recorder:
        calls = HighLevelCalls(
            KeepsRows(), RunRecord("realtime", "swing", 0), clock=VirtualClock(), trace=None, observer=recorder
        )
        for number, question in enumerate(cancel_at):
            asked = itertools.count(1)
            reply = calls.ask(
                "swing", robot.observe(), Memory(), t_ns=number, cancelled=lambda at=question, n=asked: next(n) == at
            )
            assert (reply is None) == (question is not None)
    assert reply.subgoal == "after 17 rows"
    verdict = replay(Recording(tmp_path / "run.mcap"), KeepsRows(), SwingLowLevel())
    assert verdict.equal, verdict.first
    assert verdict.stages["high level"].rerun == 3
    assert verdict.stages["high level"].skipped == {"cancelled": 2}


class Continues(SwingLowLevel):
    """Its chunks depend on every number of the chunk that they continue."""

    def act(self, observation, subgoal, goal, noise, *, playing=None):
        reply = super().act(observation, subgoal, goal, noise)
        if playing is not None:
            times = playing.times_ns - observation.t_ns
            reply.chunk.actions[:, 2] += 1e-4 * (playing.actions.sum() + times.sum() / 1e9 + playing.delay_steps)
        return reply


def test_the_chunk_that_is_continued_is_recorded_and_given_again(tmp_path):
    record_lockstep(tmp_path / "run.mcap", Continues(), chunking="guided")
    recording = Recording(tmp_path / "run.mcap")
    verdict = replay(recording, SwingHighLevel(), Continues())
    assert verdict.equal, verdict.first
    assert replay(recording, SwingHighLevel(), SwingLowLevel()).first.call == 1


def test_an_oracles_calls_are_skipped(recording):
    verdict = replay(recording, None, SwingLowLevel())
    assert verdict.equal
    assert counts(verdict) == {"high level": (0, 0, 3), "low level": (5, 5, 0)}
