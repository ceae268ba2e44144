"""Replay: equal where nothing has changed, else the first difference by name; what is missing is said."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from kinematic import Reply, SwingHighLevel, SwingLowLevel
from recorded_runs import record_lockstep

from memrt.runtime.recording import recorder as recorder_module
from memrt.runtime.recording.reader import Recording
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

    def act(self, observation, subgoal, goal, noise):
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

    def call(self, goal, observation, state):
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


def test_an_oracles_calls_are_skipped(recording):
    verdict = replay(recording, None, SwingLowLevel())
    assert verdict.equal
    assert counts(verdict) == {"high level": (0, 0, 3), "low level": (5, 5, 0)}
