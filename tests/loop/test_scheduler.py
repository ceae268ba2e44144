"""Scheduling decisions: what is late is dropped, what is stale is not used, and feasible chunks never leave a gap."""

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from memrt.runtime.loop.scheduler import (
    InARow,
    LatencyEstimate,
    SentChunk,
    SubgoalBoard,
    decide_low_level,
    keep_chunk,
    pace,
    splice,
)
from memrt.runtime.loop.settings import LoopSettings
from memrt.runtime.policy.chunking import feasible
from memrt.runtime.types import ActionChunk, Subgoal

DT = 50_000_000
SETTINGS = LoopSettings(dt_ns=DT, horizon=16, execute=8, every_steps=16, cameras=("front",))
SUBGOAL = Subgoal("go", 1, 0)
times = st.integers(0, 10**12)


def chunk_at(t0_ns: int, horizon: int = 16, dt_ns: int = DT) -> ActionChunk:
    return ActionChunk(np.arange(horizon * 8, dtype=np.float64).reshape(horizon, 8), t0_ns, dt_ns, 1)


@given(st.lists(st.integers(0, 10**9), max_size=40), st.integers(1, 8), st.integers(0, 5))
def test_the_latency_estimate_is_the_largest_of_the_recent_calls_after_warm_up(latencies, window, warm_up):
    estimate = LatencyEstimate(window, warm_up)
    for latency in latencies:
        estimate.record(latency)
    counted = latencies[warm_up:][-window:]
    assert estimate.value_ns == max(counted or latencies[-1:], default=0)  # until then: better than nothing


def test_the_latency_estimate_forgets_a_stall():
    estimate = LatencyEstimate(window=4)
    for latency in (900, 10, 10, 10):
        estimate.record(latency)
    assert estimate.value_ns == 900
    estimate.record(10)
    assert estimate.value_ns == 10


@given(times, times, st.integers(0, DT), st.integers(1, 20))
def test_splicing_keeps_exactly_the_actions_that_are_in_time(t0_ns, now_ns, lead_ns, horizon):
    chunk = chunk_at(t0_ns, horizon)
    in_time = [i for i in range(horizon) if t0_ns + i * DT >= now_ns + lead_ns]
    spliced = splice(chunk, now_ns, lead_ns)
    if not in_time:
        assert spliced is None
        return
    assert spliced is not None
    assert np.array_equal(spliced.actions, chunk.actions[in_time[0] :])
    assert spliced.t0_ns == t0_ns + in_time[0] * DT
    assert spliced.end_ns == chunk.end_ns


@given(times, st.floats(0.1, 1.0))
def test_pacing_stretches_time_about_the_observation_and_changes_no_action(t_obs_ns, speed):
    settings = LoopSettings(dt_ns=DT, horizon=16, execute=8, every_steps=16, speed=speed)
    chunk = chunk_at(t_obs_ns + DT)
    paced = pace(chunk, t_obs_ns, settings)
    assert np.array_equal(paced.actions, chunk.actions)
    assert paced.dt_ns == settings.paced_dt_ns
    assert abs((paced.t0_ns - t_obs_ns) - DT / speed) <= 1


@given(times, st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 400_000_000), st.booleans())
def test_the_low_level_is_called_only_with_a_subgoal_and_a_fresh_new_frame(
    now_ns, frame_age, chunk_age, latency, known
):
    frame_ns = now_ns - frame_age
    playing = SentChunk(now_ns - chunk_age, now_ns - chunk_age + 16 * DT, 1)
    decision = decide_low_level(
        now_ns,
        SETTINGS,
        subgoal=SUBGOAL if known else None,
        playing=playing,
        latency_ns=latency,
        oldest_frame_ns=frame_ns,
    )
    may = known and frame_age <= SETTINGS.camera_stale_ns and frame_ns > playing.t_obs_ns
    due = chunk_age >= min(SETTINGS.execute, SETTINGS.horizon - -(-latency // DT)) * DT
    assert (decision.action == "call") == (may and due)
    assert decision.action == "call" or decision.t_ns > now_ns


def test_a_new_subgoal_is_acted_on_at_once_only_under_discard():
    playing = SentChunk(0, 16 * DT, 1)
    newer = Subgoal("turn", 2, 0)
    arguments = {"subgoal": newer, "playing": playing, "latency_ns": 0, "oldest_frame_ns": DT}
    assert decide_low_level(DT, SETTINGS, **arguments).action == "wait"
    discard = LoopSettings(dt_ns=DT, horizon=16, execute=8, every_steps=16, on_new_subgoal="discard")
    assert decide_low_level(DT, discard, **arguments).action == "call"
    assert keep_chunk(1, 2, "finish")
    assert not keep_chunk(1, 2, "discard")
    assert keep_chunk(2, 2, "discard")


@given(
    st.integers(1, 32).flatmap(lambda horizon: st.tuples(st.just(horizon), st.integers(1, horizon))),
    st.integers(1, 20 * DT),
    st.integers(0, 2**32 - 1),
)
def test_a_feasible_delay_leaves_no_gap_between_chunks(shape, worst_ns, seed):
    """Replays the low-level worker's timing with frames always fresh and any latency up to the worst."""
    horizon, execute = shape
    settings = LoopSettings(dt_ns=DT, horizon=horizon, execute=execute, every_steps=16, send_lead_ns=0)
    assume(feasible(-(-worst_ns // DT), execute, horizon))
    rng = np.random.default_rng(seed)
    now_ns, playing = 0, None
    for _ in range(12):
        decision = decide_low_level(
            now_ns, settings, subgoal=SUBGOAL, playing=playing, latency_ns=worst_ns, oldest_frame_ns=now_ns
        )
        now_ns = max(now_ns, decision.t_ns)
        t_obs_ns = now_ns
        now_ns += int(rng.integers(1, worst_ns + 1))
        chunk = splice(chunk_at(t_obs_ns + DT, horizon), now_ns, 0)
        assert chunk is not None
        assert playing is None or chunk.t0_ns <= playing.end_ns + DT
        playing = SentChunk(t_obs_ns, chunk.end_ns, 1)


@given(st.lists(st.tuples(st.sampled_from(["", "pick", "place"]), st.integers(0, 50), st.integers(0, 9)), max_size=30))
def test_subgoal_revisions_grow_exactly_when_a_newer_answer_names_another_text(answers):
    board, now_ns = SubgoalBoard(), 0
    for text, t_obs_ns, wait_ns in answers:
        now_ns += wait_ns
        before = board.subgoal
        changed = board.answer(text, t_obs_ns, now_ns)
        after = board.subgoal
        ignored = not text or (before is not None and t_obs_ns < before.t_obs_ns)
        if ignored:
            assert not changed
            assert after == before
        else:
            assert after is not None
            assert (after.text, after.t_obs_ns) == (text, t_obs_ns)
            assert changed == (before is None or before.text != text)
            assert after.revision == (before.revision if before else 0) + changed
        assert board.silence_ns(now_ns) == 0


def test_a_subgoal_expires_after_its_time_to_live_and_not_before():
    board = SubgoalBoard()
    board.start(1_000)
    assert not board.expired(4_000, 3_000)
    assert board.expired(4_001, 3_000)
    board.answer("pick", 0, 4_001)
    assert not board.expired(7_001, 3_000)


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 5))
def test_faults_in_a_row_are_counted_from_the_last_success(faults, limit):
    counter, run = InARow(limit), 0
    for fault in faults:
        if fault:
            run += 1
            assert counter.happened() == (run >= limit)
        else:
            run = 0
            counter.reset()
