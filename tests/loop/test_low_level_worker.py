"""The low-level worker on a virtual clock: chunking, ticks, delays, and what never happens whatever the timing."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
import pytest
from bimodal import EXECUTE, HORIZON, BimodalLowLevel
from hypothesis import given
from hypothesis import strategies as st
from kinematic import DT_NS, HOME, ChunkReply

from memrt.runtime.clock import NS_PER_MS, VirtualClock
from memrt.runtime.loop.lockstep import run_lockstep
from memrt.runtime.loop.low_level_worker import LowLevelWorker
from memrt.runtime.loop.observer import LowLevelCall, NoObserver
from memrt.runtime.loop.record import RunRecord
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.loop.shared import Shared
from memrt.runtime.policy.chunking import feasible
from memrt.runtime.trace import Trace
from memrt.runtime.types import ActionChunk, Frame, Observation, PlayingChunk, RobotMode, Subgoal

REST = np.append(HOME, 1.0)


class TableRobot:
    """Follows the newest chunk exactly, and keeps what it was sent, when. Its camera fails when told to."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.sent: list[tuple[int, ActionChunk]] = []
        self.mode, self.fault_reason, self.refused_in_a_row, self.statistics = RobotMode.RUNNING, "", 0, {}
        self.blind_until_ns = 0
        self._frame = Frame("front", 0, 0, np.zeros((1, 1, 3), np.uint8))

    @property
    def outcome(self):
        return type("Running", (), {"status": "running", "reason": ""})()

    def observe(self) -> Observation:
        now_ns = self.clock.now_ns()
        if now_ns >= self.blind_until_ns:
            image = np.full((1, 1, 3), self._frame.index % 251, np.uint8)
            self._frame = Frame("front", self._frame.index + 1, now_ns, image)
        due = [a for _, c in self.sent[-1:] for i, a in enumerate(c.actions) if c.t0_ns + i * c.dt_ns <= now_ns]
        return Observation(now_ns, due[-1] if due else REST, {"front": self._frame})

    def send(self, chunk: ActionChunk) -> None:
        self.sent.append((self.clock.now_ns(), chunk))

    def advance(self, steps: int) -> None:
        self.clock.advance(steps * DT_NS)

    def arm(self) -> None: ...
    def stop(self) -> None: ...


@dataclass
class TimedLowLevel:
    """Takes as long as it is told, call by call, and may be overtaken by a new subgoal meanwhile."""

    clock: VirtualClock
    shared: Shared
    latencies_ns: list[int]
    overtaken: set[int] = field(default_factory=set)
    horizon: int = HORIZON
    calls: list[tuple[Observation, Subgoal, PlayingChunk | None]] = field(default_factory=list)

    def noise(self, seed: int, call_index: int) -> np.ndarray:
        return np.zeros((self.horizon, 8), np.float32)

    def act(self, observation, subgoal, goal, noise, *, playing=None) -> ChunkReply:
        call = len(self.calls)
        self.calls.append((observation, subgoal, playing))
        self.clock.advance(self.latencies_ns[call % len(self.latencies_ns)])
        if call in self.overtaken:
            with self.shared.lock:
                self.shared.board.answer(f"subgoal {call}", observation.t_ns, self.clock.now_ns())
        actions = np.tile(REST, (self.horizon, 1))
        return ChunkReply(ActionChunk(actions, observation.t_ns + DT_NS, DT_NS, subgoal.revision))


class Line:
    """A worker that is stepped whenever it asks to be."""

    def __init__(self, low_level=None, latencies_ns: list[int] | None = None, overtaken=frozenset(), **changes) -> None:
        values = {"dt_ns": DT_NS, "horizon": HORIZON, "execute": EXECUTE, "every_steps": 16, "cameras": ("front",)}
        self.settings = LoopSettings(**(values | changes))
        self.clock = VirtualClock(DT_NS)
        self.robot = TableRobot(self.clock)
        self.shared = Shared(RunRecord("realtime", "go", 0), None, self.settings.cameras)
        if low_level is None:
            low_level = TimedLowLevel(
                self.clock, self.shared, latencies_ns or [0], set(overtaken), self.settings.horizon
            )
        else:
            low_level.clock = self.clock
        self.low_level, self.observed = low_level, []
        trace = Trace()

        class Observer(NoObserver):
            def low_level(inner, call: LowLevelCall) -> None:  # noqa: N805
                self.observed.append(call)

        self.worker = LowLevelWorker(
            self.robot,
            low_level,
            self.settings,
            shared=self.shared,
            clock=self.clock,
            trace=trace,
            observer=Observer(),
        )
        self.shared.begin_following(self.clock.now_ns(), 0)
        self.shared.board.answer("go", 0, self.clock.now_ns())

    def run(self, steps: int) -> RunRecord:
        wake = threading.Event()
        for _ in range(steps):
            next_ns = self.worker.step()
            assert next_ns >= self.clock.now_ns()
            self.clock.wait_until(next_ns, wake)
        return self.shared.record

    def hold_asked(self) -> str:
        return self.shared.take_hold_request()


def seams_mrad(kind: str, beta: float = 5.0, calls: str = "chunked", **changes) -> tuple[float, float]:
    """(median, largest) seam of chunks from either side of an obstacle, 120 ms late."""
    low_level = BimodalLowLevel(kind, calls, delay_ns=120 * NS_PER_MS, beta=beta)
    record = Line(low_level, chunking=kind, calls=calls, **changes).run(300)
    found = record.amounts["seam [µrad]"]
    assert found.count > 100
    return found.percentile(50) / 1e3, found.max / 1e3


@pytest.mark.parametrize("calls", ["chunked", "every_tick"])
def test_real_time_chunking_keeps_to_the_side_it_is_on(calls):
    """Without it every second chunk jumps to the other side of the obstacle, which are 300 mrad apart."""
    median, largest = seams_mrad("none", calls=calls)
    assert largest > 300
    assert seams_mrad("prefix", calls=calls)[1] < 1e-2  # the very actions of the old chunk
    for beta, factor in ((5.0, 2), (10.0, 10)):
        guided = seams_mrad("guided", beta, calls)
        assert guided[0] < median / factor
        assert guided[1] < largest / factor


def test_a_run_that_is_slowed_down_continues_its_chunks_too():
    assert seams_mrad("prefix", speed=0.4)[1] < seams_mrad("none", speed=0.4)[1] / 2


def test_in_lockstep_a_guided_chunk_fades_from_the_old_one_to_the_new():
    def largest(kind: str) -> float:
        settings = LoopSettings(
            dt_ns=DT_NS, horizon=HORIZON, execute=EXECUTE, every_steps=16, cap_steps=400, chunking=kind
        )
        record = run_lockstep(TableRobot(VirtualClock(DT_NS)), None, BimodalLowLevel(kind), "go", settings)
        return record.amounts["seam [µrad]"].max

    assert largest("guided") < 0.75 * largest("none")
    assert largest("prefix") == largest("none")  # nothing is executed while time stands still: an empty prefix


def test_a_chunk_is_given_the_delay_that_was_measured_and_what_plays():
    line = Line(latencies_ns=[120 * NS_PER_MS], chunking="guided", warm_up_calls=0)
    line.run(20)
    first, *rest = [playing for _, _, playing in line.low_level.calls]
    assert first is None
    assert {playing.delay_steps for playing in rest} == {3}
    for observation, _, playing in line.low_level.calls[1:]:
        assert playing.times_ns[-1] > observation.t_ns
    assert [call.playing for call in line.observed] == [playing for _, _, playing in line.low_level.calls]
    assert all(playing is None for _, _, playing in run_plain(120 * NS_PER_MS))


def run_plain(latency_ns: int):
    line = Line(latencies_ns=[latency_ns])
    line.run(20)
    return line.low_level.calls


def test_a_slow_first_call_is_forgotten_as_warm_up():
    line = Line(latencies_ns=[400 * NS_PER_MS, *[60 * NS_PER_MS] * 40], chunking="guided", warm_up_calls=1)
    line.run(12)
    delays = [playing.delay_steps for _, _, playing in line.low_level.calls if playing is not None]
    assert delays[0] == 8  # the only estimate there is
    assert set(delays[1:]) == {2}


def test_a_stall_counts_for_a_window_and_no_longer():
    latencies = [60 * NS_PER_MS] * 3 + [290 * NS_PER_MS] + [60 * NS_PER_MS] * 60
    line = Line(latencies_ns=latencies, latency_window=4, warm_up_calls=0, chunking="guided")
    line.run(30)
    delays = [playing.delay_steps for _, _, playing in line.low_level.calls if playing is not None]
    assert delays[:3] == [2, 2, 2]
    assert delays[3:7] == [6, 6, 6, 6]
    assert set(delays[7:]) == {2}


def test_a_chunk_later_than_its_prefix_is_dropped_and_the_playing_one_goes_on():
    latencies = [60 * NS_PER_MS] * 4 + [290 * NS_PER_MS] + [60 * NS_PER_MS] * 40
    for kind, dropped in (("none", 0), ("prefix", 1), ("guided", 1)):
        line = Line(latencies_ns=latencies, chunking=kind)
        record = line.run(30)
        assert record.counts["chunks later than their prefix"] == dropped
        assert record.starved_ns == 0
        assert len(line.robot.sent) == len(line.low_level.calls) - dropped


def test_five_chunks_later_than_their_prefix_hold():
    slower = [milliseconds * NS_PER_MS for milliseconds in (45, 91, 141, 191, 241, 291)]  # each one step more
    line = Line(latencies_ns=slower, chunking="prefix", execute=2, warm_up_calls=0)
    record = line.run(7)
    assert record.counts["chunks later than their prefix"] == 5
    assert "5 chunks in a row came too late" in line.hold_asked()


def test_every_tick_computes_a_chunk_at_every_control_step_where_the_computer_keeps_up():
    line = Line(latencies_ns=[30 * NS_PER_MS], calls="every_tick")
    line.run(60)
    times = [observation.t_ns for observation, _, _ in line.low_level.calls]
    assert len(times) > 25
    assert set(np.diff(times)) == {DT_NS}


def test_every_tick_on_a_slow_computer_is_call_after_call_with_the_newest_observation_and_no_queue():
    latency = 2 * DT_NS + DT_NS // 3
    line = Line(latencies_ns=[latency], calls="every_tick", chunking="guided", warm_up_calls=0)
    record = line.run(60)
    times = [observation.t_ns for observation, _, _ in line.low_level.calls]
    assert set(np.diff(times)) == {latency}
    assert record.starved_ns == 0
    assert record.counts["calls too slow for the horizon"] == 0


@pytest.mark.parametrize("policy", ["finish", "discard"])
def test_a_subgoal_that_changes_while_a_chunk_is_computed(policy):
    line = Line(latencies_ns=[60 * NS_PER_MS], overtaken={2}, on_new_subgoal=policy, chunking="guided")
    record = line.run(12)
    revisions = [chunk.subgoal_revision for _, chunk in line.robot.sent]
    observations = [observation.t_ns for observation, _, _ in line.low_level.calls]
    if policy == "finish":
        assert revisions[:4] == [1, 1, 1, 2]
        assert record.counts["chunks of an older subgoal"] == 0
        assert observations[3] - observations[2] == EXECUTE * DT_NS
    else:
        assert revisions[:3] == [1, 1, 2]
        assert record.counts["chunks of an older subgoal"] == 1
        assert observations[3] - observations[2] == 60 * NS_PER_MS  # asked again at once
        _, _, playing = line.low_level.calls[3]
        assert playing.times_ns[-1] == observations[3] + playing.delay_steps * DT_NS  # the old plan no further


timings = st.lists(st.integers(0, 9 * DT_NS), min_size=1, max_size=25)


@given(
    latencies=timings,
    overtaken=st.sets(st.integers(0, 25), max_size=8),
    dropouts=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8 * DT_NS)), max_size=4),
    chunking=st.sampled_from(["none", "prefix", "guided"]),
    calls=st.sampled_from(["chunked", "every_tick"]),
    on_new_subgoal=st.sampled_from(["finish", "discard"]),
    speed=st.sampled_from([1.0, 0.5]),
    execute=st.integers(1, HORIZON),
)
def test_whatever_the_timing_no_action_is_past_and_revisions_hold(latencies, overtaken, dropouts, **changes):
    line = Line(latencies_ns=latencies, overtaken=overtaken, **changes)
    settings, board = line.settings, line.shared.board
    send, sent_under = line.robot.send, []
    line.robot.send = lambda chunk: (sent_under.append(board.subgoal.revision), send(chunk))
    blind, wake = dict(dropouts), threading.Event()
    for step in range(40):
        if step in blind:
            line.robot.blind_until_ns = line.clock.now_ns() + blind[step]
        line.clock.wait_until(line.worker.step(), wake)
    for now_ns, chunk in line.robot.sent:
        assert chunk.t0_ns >= now_ns + settings.send_lead_ns
        assert chunk.dt_ns == settings.paced_dt_ns
    revisions = [chunk.subgoal_revision for _, chunk in line.robot.sent]
    assert revisions == sorted(revisions)
    if settings.on_new_subgoal == "discard":
        assert revisions == sent_under
    computed_under = {subgoal.revision for _, subgoal, _ in line.low_level.calls}
    assert set(revisions) <= computed_under
    observed = [observation.t_ns for observation, _, _ in line.low_level.calls]
    assert observed == sorted(observed)
    for observation, _, playing in line.low_level.calls:
        assert line.settings.chunking == "none" or playing is None or playing.times_ns[-1] > observation.t_ns
        assert observation.t_ns - observation.frames["front"].t_ns <= settings.camera_stale_ns


@given(
    shape=st.integers(2, 32).flatmap(lambda horizon: st.tuples(st.just(horizon), st.integers(1, horizon))),
    worst=st.integers(1, 16 * DT_NS),
    shares=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20),
    chunking=st.sampled_from(["none", "prefix", "guided"]),
    calls=st.sampled_from(["chunked", "every_tick"]),
)
def test_feasible_timing_never_starves_the_robot(shape, worst, shares, chunking, calls):
    """Latencies up to the worst, which comes first: real-time chunking cannot know of a delay it has never seen."""
    horizon, execute = shape
    delay = -(-worst // DT_NS)
    if not feasible(delay, execute if calls == "chunked" else delay, horizon):
        return
    latencies = [worst, *(round(share * worst) for share in shares)]
    line = Line(
        latencies_ns=latencies,
        horizon=horizon,
        execute=execute,
        chunking=chunking,
        calls=calls,
        send_lead_ns=0,
        latency_window=len(latencies),
        warm_up_calls=0,
    )
    record = line.run(40)
    assert record.starved_ns == 0
    assert record.counts["late chunks"] == record.counts["chunks later than their prefix"] == 0
    assert record.counts["calls too slow for the horizon"] == 0
    assert len(line.robot.sent) == len(line.low_level.calls)
