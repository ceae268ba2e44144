"""What an observer is told: every call with what went into it, every chunk's fate, every event, in order."""

import numpy as np
import pytest
from kinematic import DT_NS, KinematicRobot, Memory, SwingHighLevel, SwingLowLevel

from memrt.runtime.clock import VirtualClock
from memrt.runtime.loop.lockstep import run_lockstep
from memrt.runtime.loop.observer import HighLevelCall, LowLevelCall
from memrt.runtime.loop.realtime import RealtimeLoop
from memrt.runtime.loop.settings import LoopSettings

SETTINGS = LoopSettings(dt_ns=DT_NS, horizon=16, execute=8, every_steps=16, cap_steps=200, cameras=("front",))


class Notes:
    """Keeps everything it is told."""

    def __init__(self) -> None:
        self.high: list[HighLevelCall] = []
        self.low: list[LowLevelCall] = []
        self.chunks: dict[int, object] = {}
        self.events: list[tuple[str, dict]] = []
        self.modes: list[str] = []

    def watched(self, observation):
        return observation

    def high_level(self, call):
        self.high.append(call)

    def low_level(self, call):
        self.low.append(call)

    def sent(self, call, chunk, t_ns):
        self.chunks[call] = chunk

    def event(self, name, track, t_ns, **arguments):
        self.events.append((name, arguments))

    def state(self, mode, observation, t_ns):
        self.modes.append(mode.value)


def lockstep(low_level: SwingLowLevel) -> tuple[Notes, object]:
    notes = Notes()
    robot = KinematicRobot(VirtualClock(), 2, refusals_raise=True)
    return notes, run_lockstep(robot, SwingHighLevel(), low_level, "swing", SETTINGS, observer=notes)


def test_every_lockstep_decision_can_be_computed_again():
    notes, record = lockstep(SwingLowLevel())
    assert [call.index for call in notes.high] == list(range(len(notes.high)))
    assert len(notes.low) == record.counts["chunks"] == len(notes.chunks)
    high_level, low_level, before = SwingHighLevel(), SwingLowLevel(), Memory()
    for call in notes.high:
        assert call.before == before
        before = high_level.call(call.goal, call.observation, call.before).state
        assert before == call.reply.state
    for call in notes.low:
        again = low_level.act(call.observation, call.subgoal, call.goal, low_level.noise(call.seed, call.index))
        np.testing.assert_array_equal(again.chunk.actions, call.reply.chunk.actions)
    assert [name for name, _ in notes.events] == ["subgoal"] * record.counts["subgoals"] + ["end"]
    assert notes.events[-1] == ("end", {"status": "success", "reason": record.reason})


def test_a_chunk_that_is_not_sent_says_why():
    notes, _ = lockstep(SwingLowLevel(spoil=np.nan))
    rejected = [arguments for name, arguments in notes.events if name == "rejected chunks"]
    assert [arguments["call"] for arguments in rejected] == [call.index for call in notes.low]
    assert all("non-finite" in arguments["reason"] for arguments in rejected)
    assert notes.chunks == {}


@pytest.mark.parametrize("delay_ns", [0, 130_000_000])
def test_what_is_sent_in_real_time_is_the_end_of_the_calls_chunk(delay_ns):
    clock, notes = VirtualClock(), Notes()
    robot = KinematicRobot(clock, 2)
    low_level = SwingLowLevel(delay_ns=delay_ns, clock=clock)
    loop = RealtimeLoop(robot, SwingHighLevel(), low_level, "swing", SETTINGS, clock=clock, observer=notes)
    loop.start(threads=False)
    for _ in range(40):
        loop.high_level_worker.step()
        loop.low_level_worker.step()
        clock.advance(DT_NS)
        robot.observe()
        loop.tick()
    loop.stop("enough")
    loop.quit()
    assert notes.chunks
    for call, chunk in notes.chunks.items():
        whole = notes.low[call].reply.chunk
        first = len(whole.actions) - len(chunk.actions)
        np.testing.assert_array_equal(whole.actions[first:], chunk.actions)
        assert chunk.t0_ns == whole.t0_ns + first * whole.dt_ns
        assert (first > 0) == (delay_ns > 0)
    assert set(notes.modes) == {"running"}
    assert ("hold", {"reason": "enough"}) in notes.events
